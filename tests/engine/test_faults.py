"""The real engine under hostile hands: its client is killed, told to stop, or loses it."""

from __future__ import annotations

import contextlib
import importlib.util
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.commands import Command, forked_from, python_path
from tests.support.stores import all_runs, fresh_store
from whisperbench.results.bundle import PARTIAL
from whisperbench.results.names import FAILURE
from whisperbench.results.recording import read_journal
from whisperbench.tracking.client import connect
from whisperbench.tracking.stale import close_stale_runs

DEMO = ("--model", "demo", "--corpus", "demo", "--repeats", "50", "--max_num_seqs", "2")
"""Two windows a step: short steps, so that a step is told from a standstill after seconds, also by a slow CPU."""
pytestmark = [
    pytest.mark.usefixtures("no_project_run", "leaves_nothing"),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM"),
]


@pytest.fixture(scope="module")
def warm() -> Any:
    """What is forked here has imported what the client imports of vLLM; the engine's own process imports it anew."""
    return forked_from("tests.support.processes", "vllm.entrypoints.llm", "whisperbench.engines.vllm.model")


@contextlib.contextmanager
def real_benchmark(warm: Any, tmp_path: Path, address: str, *arguments: str) -> Iterator[Command]:
    """The benchmark command with the real engine on the demo clips, again and again; its output is in out.log."""
    environment = {**python_path(), "MLFLOW_TRACKING_URI": address}
    words = [*DEMO, "--results_dir", str(tmp_path / "results"), *arguments]
    client = Command(warm, "benchmark", words, environment=environment, folder=tmp_path, log=tmp_path / "out.log")
    try:
        yield client
    finally:
        client.kill()  # its guardian ends the rest


def wait_until(happens: Callable[[], bool], client: Command, tmp_path: Path) -> None:
    deadline = time.monotonic() + 700
    while not happens():
        assert client.poll() is None, (tmp_path / "out.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("number", "when"),
    [(signal.SIGKILL, "imports"), (signal.SIGKILL, "loads"), (signal.SIGTERM, "transcribes")],
    ids=["killed while it imports", "killed while it loads", "told to stop"],
)
def test_the_real_engine_ends_with_its_client(
    number: signal.Signals, when: str, warm: Any, tmp_path: Path, empty_store: Path
) -> None:
    """No process of the engine is left after 10 s, also when it was only half up; what was finished is kept."""
    results, address = tmp_path / "results", fresh_store(tmp_path, empty_store)
    with real_benchmark(warm, tmp_path, address) as client:
        follower = psutil.Process(client.pid)
        wait_until(lambda: engine_has_come_to(when, follower, results), client, tmp_path)
        time.sleep(1)  # the guardian looks twice a second
        family = follower.children(recursive=True)
        assert family
        client.send_signal(number)
        assert client.wait(10) == (128 + number if number != signal.SIGKILL else -number)
    _, left = psutil.wait_procs(family, timeout=10)
    assert left == []
    store = connect(address)
    close_stale_runs(store)
    assert [run.info.status for run in all_runs(store)] == ["KILLED"]
    kept = [read_journal(path) for path in results.glob(f"*{PARTIAL}")]
    assert sum(map(len, kept)) >= (1 if when == "transcribes" else 0)


def test_a_real_engine_that_dies_is_reported(warm: Any, tmp_path: Path, empty_store: Path) -> None:
    """Killed while it transcribes: one clear line, a FAILED run that holds the engine's log, no process left."""
    results, address = tmp_path / "results", fresh_store(tmp_path, empty_store)
    with real_benchmark(warm, tmp_path, address) as client:
        follower = psutil.Process(client.pid)
        wait_until(lambda: engine_has_come_to("transcribes", follower, results), client, tmp_path)
        family = follower.children(recursive=True)
        engine_among(family).kill()
        assert client.wait(30) == 1
    _, left = psutil.wait_procs(family, timeout=10)
    assert left == []
    output = (tmp_path / "out.log").read_text()
    assert "error: The engine died while it worked" in output
    assert "Traceback" not in output
    store = connect(address)
    (run,) = all_runs(store)
    assert run.info.status == "FAILED"
    assert "engine died" in run.data.tags[FAILURE]
    assert "engine.log" in [artifact.path for artifact in store.list_artifacts(run.info.run_id)]
    (kept,) = results.glob(f"*{PARTIAL}")
    assert read_journal(kept)


@pytest.mark.parametrize("when", ["loads", "transcribes"])
def test_a_real_engine_that_stops_is_ended(when: str, warm: Any, tmp_path: Path, empty_store: Path) -> None:
    """Its process is frozen, as by a GPU that hangs: past stall_minutes the run is FAILED and the transcripts kept."""
    results, address = tmp_path / "results", fresh_store(tmp_path, empty_store)
    with real_benchmark(warm, tmp_path, address, "--stall_minutes", "0.2") as client:
        follower = psutil.Process(client.pid)
        wait_until(lambda: engine_has_come_to(when, follower, results), client, tmp_path)
        family = follower.children(recursive=True)
        engine_among(family).suspend()
        assert client.wait(90) == 1
    _, left = psutil.wait_procs(family, timeout=10)
    assert left == []
    what = "The engine" if when == "transcribes" else "The start of the engine"
    assert f"error: {what} made no progress for 0.2 minutes and was ended" in (tmp_path / "out.log").read_text()
    (run,) = all_runs(connect(address))
    assert run.info.status == "FAILED"
    assert "no progress" in run.data.tags[FAILURE]
    (kept,) = results.glob(f"*{PARTIAL}")
    assert bool(read_journal(kept)) == (when == "transcribes")


def engine_among(family: list[psutil.Process]) -> psutil.Process:
    (core,) = [process for process in family if is_engine(process)]
    return core


def is_engine(process: psutil.Process) -> bool:
    """Under the title that it gives itself, or before it has one; a process that has just ended is none."""
    try:
        return process.name().startswith("VLLM::Engine") or "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def engine_has_come_to(when: str, client: psutil.Process, results: Path) -> bool:
    """Whether its process is there and `imports` vLLM, has got its work and `loads`, or `transcribes`."""
    if when == "transcribes":
        return any(path.stat().st_size for path in results.glob("*/transcripts.jsonl"))
    with contextlib.suppress(psutil.NoSuchProcess):
        found = [child for child in client.children() if is_engine(child)]
        return any(when == "imports" or child.name().startswith("VLLM::Engine") for child in found)
    return False
