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
from typing import Any

import psutil
import pytest

from tests.support.commands import python_path
from tests.support.fakes import DELAY_VARIABLE, LEDGER_VARIABLE
from tests.support.stores import fresh_store
from whisperbench.tracking.connection import connect

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


def ended(client: Any) -> Any:
    """The only run, once its status is final: `mlflow run` writes FAILED over KILLED, and that is put right."""
    deadline = time.monotonic() + 30
    while True:
        (run,) = client.search_runs(["0"])
        if run.info.status == "KILLED" or time.monotonic() > deadline:
            return run
        time.sleep(0.2)


@pytest.mark.slow
class TestMlflowRun:
    """What MLflow itself does to the run and to our process, with the real `mlflow run`."""

    @pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
    @pytest.mark.parametrize(
        ("number", "whole_group"),
        [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGKILL, False)],
        ids=["Ctrl-C", "SIGTERM to mlflow run", "SIGKILL to mlflow run"],
    )
    def test_killed_and_no_orphan(
        self, number: signal.Signals, whole_group: bool, project: Path, tmp_path: Path, empty_store: Path
    ) -> None:
        """Within 10 s no process is left, the run is KILLED, its transcripts are kept, and no token was noted."""
        address = fresh_store(tmp_path, empty_store)
        with mlflow_run(project, address, tmp_path / "ledger") as launcher:
            family = psutil.Process(launcher.pid).children(recursive=True)
            assert family
            (os.killpg if whole_group else os.kill)(launcher.pid, number)
            launcher.wait(10)
            _, left = psutil.wait_procs(family, timeout=10)
            assert left == []
        said = (project / "out.log").read_text()
        run = ended(connect(address))
        assert run.info.status == "KILLED", f"{run.data.tags}\n{said}"
        assert TOKEN not in str(run.data.tags)
        (partial,) = (project / "results").glob("*.partial")
        assert (partial / "transcripts.jsonl").read_bytes().count(b"\n") > 1


@pytest.mark.slow
def test_two_first_ones_at_once(tmp_path: Path) -> None:
    """As two `make demo` on a store that is not there yet: MLflow alone lets them spoil each other's tables."""
    (tmp_path / "MLproject").write_text('name: fake\nentry_points:\n  main:\n    command: "true"\n')
    environment = {**python_path(), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    store = f"{shlex.quote(sys.executable)} -m flows.terminal.store whisperbench"
    run = f"{shlex.quote(sys.executable)} -m mlflow run . --env-manager local --experiment-name whisperbench"
    several = [
        subprocess.Popen(["sh", "-c", f"{store} && {run}"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=400)[1].decode() for process in several]
    assert [process.returncode for process in several] == [0, 0], "\n".join(said)
    client = connect(environment["MLFLOW_TRACKING_URI"])
    runs = client.search_runs([client.get_experiment_by_name("whisperbench").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
