"""The real `mlflow run`: signals, and the project's own entry point."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.bundles import result_in
from tests.support.commands import FAKE_BENCHMARK, PROJECT, lines_in, python_path, still_running, wait_until
from tests.support.fakes import DELAY_VARIABLE, LEDGER_VARIABLE
from tests.support.stores import all_runs, fresh_store
from whisperbench.tracking.client import connect
from whisperbench.tracking.runs import BUNDLE_TAG

pytestmark = pytest.mark.usefixtures("no_project_run", "leaves_nothing")

TOKEN = "s3cret-pa55word"  # noqa: S105


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An MLflow project, in a git checkout whose remote carries a token, that runs the benchmark with a fake engine."""
    folder = tmp_path / "project"
    folder.mkdir()
    command = f"{shlex.join(FAKE_BENCHMARK)} --model demo --corpus demo --repeats 50 --results-dir {{results_dir}}"
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
        wait_until(lambda: lines_in(ledger) >= 20, process, project / "out.log")
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class TestMlflowRun:
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
        """No process is left, the run names the signal, its transcripts are kept, and no tag holds the token.

        After Ctrl-C `mlflow run` itself may write FAILED over KILLED.
        """
        address = fresh_store(tmp_path, empty_store)
        with mlflow_run(project, address, tmp_path / "ledger") as launcher:
            family = psutil.Process(launcher.pid).children(recursive=True)
            assert family
            (os.killpg if whole_group else os.kill)(launcher.pid, number)
            launcher.wait(60)
            assert still_running(family, 20) == []
        said = (project / "out.log").read_text()
        (run,) = connect(address).search_runs(["0"])
        assert run.info.status in statuses, f"{run.data.tags}\n{said}"
        assert run.data.tags["whisperbench.failure"] == cause, said
        assert TOKEN not in str(run.data.tags)
        (partial,) = (project / "results").glob("*.partial")
        assert (partial / "transcripts.jsonl").read_bytes().count(b"\n") > 1


def upload_with(env_manager: str, folder: Path, seconds: float) -> None:
    """Upload a result with the project's own MLproject to a store that does not exist yet."""
    bundle = result_in(folder / "results")
    address = f"sqlite:///{folder / 'mlflow.db'}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [sys.executable, "-m", "mlflow", "run", str(PROJECT), "--env-manager", env_manager, "-e", "upload"]
    command += ["--experiment-name", "whisperbench", "-P", f"bundles={bundle.directory}"]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "MLFLOW_TRACKING_URI": address, "PATH": path},
        capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    runs = all_runs(connect(address))
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert [run for run in runs if run.data.tags.get(BUNDLE_TAG) == bundle.id]


def test_the_projects_own_entry_point(tmp_path: Path) -> None:
    """`mlflow run . --env-manager local -e upload` on a store that does not exist yet."""
    upload_with("local", tmp_path, 300)
