"""The real engine ends with its client, however the client ends."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.commands import command, kill_with_guardian, start, still_running, wait_until
from tests.support.stores import all_runs
from whisperbench.results.bundle import PARTIAL
from whisperbench.results.recording import read_journal
from whisperbench.tracking.tracked_run import close_stale_runs

OPTIONS = {"model": "demo", "corpus": "demo", "repeats": 50, "max_num_seqs": 2, "results_dir": "results"}


@pytest.mark.usefixtures("no_project_run", "leaves_nothing")
@pytest.mark.parametrize(
    ("number", "when"),
    [(signal.SIGKILL, "imports"), (signal.SIGKILL, "loads"), (signal.SIGTERM, "transcribes"), (None, "transcribes")],
    ids=[
        "killed while it imports",
        "killed while it loads",
        "terminated while it transcribes",
        "killed together with its guardian",
    ],
)
def test_the_real_engine_ends_with_its_client(
    number: signal.Signals | None, when: str, client: Any, tmp_path: Path
) -> None:
    """No process of the engine is left, also when it was still starting; what was finished is kept."""
    log = tmp_path / "out.log"
    process = start(command("benchmark"), tmp_path, OPTIONS, log=log)
    try:
        wait_until_it(when, process, log)
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        kill_with_guardian(process.pid) if number is None else process.send_signal(number)
        assert process.wait(60) == (143 if number == signal.SIGTERM else -signal.SIGKILL), log.read_text()
    finally:
        process.kill()  # its guardian ends the rest
    assert still_running(family) == []
    close_stale_runs(client)
    assert [run.info.status for run in all_runs(client)] == ["KILLED"]
    kept = [read_journal(path) for path in tmp_path.glob(f"results/*{PARTIAL}")]
    assert bool(sum(map(len, kept))) == (when == "transcribes")


def wait_until_it(does: str, process: subprocess.Popen[str], log: Path) -> None:
    """Return when the engine's process exists and `imports` vLLM, has its name and `loads`, or `transcribes`."""
    client, results = psutil.Process(process.pid), log.parent / "results"

    def happens() -> bool:
        if does == "transcribes":
            return any(path.stat().st_size for path in results.glob("*/transcripts.jsonl"))
        return any(does == "imports" or name.startswith("VLLM::Engine") for name in engine_names(client))

    wait_until(happens, process, log)


def engine_names(client: psutil.Process) -> list[str]:
    """The names of engine processes below a client, also before they have given themselves one."""
    found = []
    for child in client.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.name().startswith("VLLM::Engine") or "spawn_main" in " ".join(child.cmdline()):
                found.append(child.name())
    return found
