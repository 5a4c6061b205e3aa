"""From the first to the last moment of a run: signals, statuses, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows import lifetime
from flows.lifetime import Interrupted, signals_raise, tracked_run
from tests.support.fakes import DELAY_VARIABLE, LEDGER_VARIABLE
from tests.support.stores import fresh_store
from whisperbench.errors import EngineError
from whisperbench.tracking import write as tracking

pytestmark = pytest.mark.usefixtures("no_project_run")

PROJECT = Path(__file__).resolve().parents[2]
TOKEN = "s3cret-pa55word"  # noqa: S105


@pytest.fixture
def client(tmp_path: Path, empty_store: Path) -> Any:
    return tracking.connect(fresh_store(tmp_path, empty_store))


def interrupt(number: signal.Signals = signal.SIGTERM) -> None:
    """Tell this process; Python runs the handler before the sleep is over."""
    os.kill(os.getpid(), number)
    time.sleep(5)


class TestStatus:
    def test_finished(self, client: Any) -> None:
        """A block that ends."""
        with tracked_run(client, "demo") as run:
            pass
        assert client.get_run(run.run_id).info.status == "FINISHED"

    def test_failed(self, client: Any) -> None:
        """A block that raises, with the cause in a tag."""
        with pytest.raises(EngineError), tracked_run(client, "demo") as run:
            raise EngineError("out of memory")
        found = client.get_run(run.run_id)
        assert (found.info.status, found.data.tags["whisperbench.failure"]) == ("FAILED", "out of memory")

    def test_killed(self, client: Any) -> None:
        """A signal."""
        with pytest.raises(Interrupted), tracked_run(client, "demo") as run:
            interrupt()
        found = client.get_run(run.run_id)
        assert (found.info.status, found.data.tags["whisperbench.failure"]) == ("KILLED", "SIGTERM")

    def test_killed_whatever_became_of_the_exception(self, client: Any) -> None:
        """Libraries that turn every exception into their own do not hide a signal."""
        with pytest.raises(RuntimeError), tracked_run(client, "demo") as run:  # noqa: PT012 - raised in the middle of what follows
            try:
                interrupt()
            except BaseException as error:
                raise RuntimeError("engine dead") from error
        assert client.get_run(run.run_id).info.status == "KILLED"

    def test_a_run_inside_a_run(self, client: Any) -> None:
        """A signal ends both as killed: a sweep and the run it was at."""
        with pytest.raises(Interrupted), tracked_run(client, "sweep") as outer, tracked_run(client, "child") as inner:
            interrupt()
        assert {client.get_run(run.run_id).info.status for run in (outer, inner)} == {"KILLED"}

    def test_a_signal_before_the_run_is_open(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Leaves no run behind that nobody closes."""
        monkeypatch.setattr(client, "create_run", lambda *_, **__: interrupt())
        with pytest.raises(Interrupted), tracked_run(client, "demo"):
            pytest.fail("the block must not begin")
        assert client.search_runs(["0"]) == []

    def test_a_server_that_is_gone_does_not_hide_the_cause(self, client: Any, tmp_path: Path) -> None:
        """The first error is the one that is told."""
        with pytest.raises(EngineError, match="out of memory"), tracked_run(client, "demo"):  # noqa: PT012 - raised in the middle of what follows
            (tmp_path / "mlflow.db").write_bytes(b"no database")
            raise EngineError("out of memory")


class TestSignals:
    def test_handlers_are_as_they_were(self) -> None:
        """After the block the process obeys signals as before."""
        before = [signal.getsignal(number) for number in lifetime.SIGNALS]
        with pytest.raises(Interrupted), signals_raise():
            interrupt()
        assert [signal.getsignal(number) for number in lifetime.SIGNALS] == before

    def test_nohup(self) -> None:
        """A signal that the user has told the process to ignore stays ignored."""
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with signals_raise() as arrived:
                os.kill(os.getpid(), signal.SIGHUP)
                time.sleep(0.05)
            assert arrived == []
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_once_is_enough(self) -> None:
        """An impatient second signal does not break off the closing of the engine."""
        closed = False
        with pytest.raises(Interrupted), signals_raise():  # noqa: PT012 - raised in the middle of what follows
            try:
                interrupt()
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.05)
                closed = True
        assert closed

    def test_children_are_ended_when_the_closing_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An engine that does not stop by itself is killed after its time."""
        monkeypatch.setattr(lifetime, "ENGINE_SECONDS", 0.3)
        with pytest.raises(Interrupted), signals_raise():  # noqa: PT012, SIM117 - raised in the middle of what follows
            with subprocess.Popen(["bash", "-c", "trap '' TERM; sleep 60"]) as stubborn:
                try:
                    interrupt()
                finally:
                    assert stubborn.wait(5) == -signal.SIGKILL

    def test_a_process_that_swallows_the_signal_is_ended(self) -> None:
        """Exit status 128 + n after its time, even when nothing reacts."""
        program = (
            "import os, signal, time\n"
            "from flows import lifetime\n"
            "lifetime.ENGINE_SECONDS, lifetime.EXIT_SECONDS = 0.2, 0.4\n"
            "with lifetime.signals_raise():\n"
            "    try:\n"
            "        os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)\n"
            "    except BaseException:\n"
            "        time.sleep(60)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], env=python_path(), timeout=30, check=False)
        assert done.returncode == 128 + signal.SIGTERM


def python_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{PROJECT / 'src'}:{PROJECT}"}


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
        run = ended(tracking.connect(address))
        assert run.info.status == "KILLED", f"{run.data.tags}\n{said}"
        assert TOKEN not in str(run.data.tags)
        (partial,) = (project / "results").glob("*.partial")
        assert (partial / "transcripts.jsonl").read_bytes().count(b"\n") > 1


def test_the_watch_ends_with_the_block() -> None:
    """No thread keeps looking for a launcher when the run is over."""
    with signals_raise():
        pass
    assert not [thread for thread in threading.enumerate() if thread.name in ("launcher-watch", "insist")]


class TestNoOrphans:
    PROGRAM = (
        "import os, signal, subprocess, sys, time\n"
        "from flows.guardian import no_orphans\n"
        "with no_orphans():\n"
        "    children = [subprocess.Popen(['bash', '-c', 'sleep 60 & wait']) for _ in range(2)]\n"
        "    print(*(child.pid for child in children), flush=True)\n"
        "    time.sleep(1.5)\n"
        "    if sys.argv[1] == 'killed': os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    @pytest.mark.parametrize("end", ["killed", "in peace"])
    def test_descendants_end_with_a_killed_process_only(self, end: str) -> None:
        """Within a second or two, those of children too; a process that ends in peace leaves what it wants to leave."""
        with subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM, end], env=python_path(), stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            children = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
            time.sleep(0.5)  # bash starts theirs
            family = [*children, *(grandchild for child in children for grandchild in child.children())]
            process.wait(20)
        gone, left = psutil.wait_procs(family, timeout=3)
        for each in left:
            each.kill()
        assert (left if end == "killed" else gone) == []
