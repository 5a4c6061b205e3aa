"""What MLflow itself does to the run and to our process, with the real `mlflow run`."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.commands import python_path
from tests.support.fakes import DELAY_VARIABLE, LEDGER_VARIABLE
from tests.support.stores import fresh_store
from whisperbench.tracking.client import connect

pytestmark = pytest.mark.usefixtures("no_project_run", "leaves_nothing")

TOKEN = "s3cret-pa55word"  # noqa: S105


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An MLflow project, in a git checkout whose remote carries a token, that runs the benchmark with a fake engine."""
    folder = tmp_path / "project"
    folder.mkdir()
    python = shlex.quote(sys.executable)
    command = f"{python} -m tests.support.fake_benchmark --model demo --corpus demo --repeats 50"
    command += " --results_dir {results_dir}"
    (folder / "MLproject").write_text(
        "name: fake\nentry_points:\n  main:\n    parameters:\n"
        "      model: {type: string, default: demo}\n"
        "      results_dir: {type: string, default: results}\n"
        f'    command: "{command}"\n'
    )
    for words in (
        ("init", "--quiet"),
        ("remote", "add", "origin", f"https://ann:{TOKEN}@git.example/ann/project.git"),
        ("add", "."),
        ("-c", "user.name=ann", "-c", "user.email=ann@example", "commit", "--quiet", "-m", "first"),
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


@contextlib.contextmanager
def mlflow_run(project: Path, address: str, ledger: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`mlflow run` in a process group of its own, as a terminal or a batch system starts it."""
    environment = {
        **python_path(),
        "MLFLOW_TRACKING_URI": address,
        DELAY_VARIABLE: "0.05",
        LEDGER_VARIABLE: str(ledger),
    }
    command = [sys.executable, "-m", "mlflow", "run", ".", "--env-manager", "local"]
    with (project / "out.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=project, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while not ledger.exists() or ledger.read_bytes().count(b"\n") < 20:
            assert process.poll() is None, (project / "out.log").read_text()
            assert time.monotonic() < deadline, (project / "out.log").read_text()
            time.sleep(0.05)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class TestMlflowRun:
    """What MLflow itself does to the run and to our process, with the real `mlflow run`."""

    @pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
    @pytest.mark.parametrize(
        ("number", "whole_group", "statuses", "cause"),
        [
            (signal.SIGINT, True, {"KILLED", "FAILED"}, "SIGINT"),
            (signal.SIGTERM, False, {"KILLED"}, "SIGTERM"),
            (signal.SIGKILL, False, {"KILLED"}, "SIGTERM"),
        ],
        ids=["Ctrl-C", "SIGTERM to mlflow run", "SIGKILL to mlflow run"],
    )
    def test_killed_and_no_orphan(
        self,
        number: signal.Signals,
        whole_group: bool,
        statuses: set[str],
        cause: str,
        project: Path,
        tmp_path: Path,
        empty_store: Path,
    ) -> None:
        """Within 10 s no process is left, the run names the signal, its transcripts are kept, no token was noted.

        After Ctrl-C `mlflow run` itself may write FAILED over KILLED.
        """
        address = fresh_store(tmp_path, empty_store)
        with mlflow_run(project, address, tmp_path / "ledger") as launcher:
            family = psutil.Process(launcher.pid).children(recursive=True)
            assert family
            (os.killpg if whole_group else os.kill)(launcher.pid, number)
            launcher.wait(10)
            _, left = psutil.wait_procs(family, timeout=10)
            assert left == []
        said = (project / "out.log").read_text()
        (run,) = connect(address).search_runs(["0"])
        assert run.info.status in statuses, f"{run.data.tags}\n{said}"
        assert run.data.tags["whisperbench.failure"] == cause, said
        assert TOKEN not in str(run.data.tags)
        (partial,) = (project / "results").glob("*.partial")
        assert (partial / "transcripts.jsonl").read_bytes().count(b"\n") > 1


def test_a_first_one(tmp_path: Path) -> None:
    """`mlflow run` on a SQLite store that does not exist yet."""
    (tmp_path / "MLproject").write_text('name: fake\nentry_points:\n  main:\n    command: "true"\n')
    environment = {**python_path(), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "run",
        ".",
        "--env-manager",
        "local",
        "--experiment-name",
        "whisperbench",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert statuses_in(environment["MLFLOW_TRACKING_URI"]) == ["FINISHED"]


def test_two_first_ones_at_once(tmp_path: Path) -> None:
    """On a SQLite store that does not exist yet: MLflow alone lets them corrupt each other's tables."""
    environment = {
        **python_path(),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "MLFLOW_EXPERIMENT_NAME": "whisperbench",
    }
    command = [sys.executable, "-m", "tests.support.fake_benchmark", "--model", "demo", "--corpus", "demo"]
    command += ["--results_dir", str(tmp_path / "results")]
    several = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)
    ]
    printed = [process.communicate(timeout=400)[1].decode() for process in several]
    assert [process.returncode for process in several] == [0, 0], "\n".join(printed)
    assert statuses_in(environment["MLFLOW_TRACKING_URI"]) == ["FINISHED", "FINISHED"]


def statuses_in(address: str) -> list[str]:
    client = connect(address)
    experiment = client.get_experiment_by_name("whisperbench")
    assert experiment is not None
    return [run.info.status for run in client.search_runs([experiment.experiment_id])]
