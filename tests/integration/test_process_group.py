"""A command in a process group of its own: nothing of it is left, and its log says why it failed."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest

from whisperbench.processes import group
from whisperbench.processes.group import last_error, run_to_end


def run_here(directory: Path, program: str, **more: Any) -> Any:
    more = {"time_limit_seconds": 0.0, "tick": lambda _seconds: None, **more}
    return run_to_end([sys.executable, "-c", program], env=dict(os.environ), log=directory / "log", **more)


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_nothing_of_its_group_is_left(trap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that the command left behind is ended, or killed after its time if it ignores SIGTERM."""
    monkeypatch.setattr(group, "GRACE_SECONDS", 0.5)
    mark = f"600.{uuid.uuid4().int % 10**9}"
    words = ["bash", "-c", f"{trap}echo ready; exec sleep {mark}"]
    program = f"import subprocess; subprocess.Popen({words}, stdout=subprocess.PIPE).stdout.readline()"
    assert run_here(tmp_path, program).exit_status == 0
    assert not [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[-1:] == [mark]]


def test_an_exception_of_tick_ends_it(tmp_path: Path) -> None:
    """Like a signal that raises in the thread that waits."""
    before = set(psutil.Process().children())  # servers of other tests
    started: set[psutil.Process] = set()

    def tick(_seconds: float) -> None:
        started.update(set(psutil.Process().children()) - before)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_here(tmp_path, "import time; time.sleep(600)", tick=tick)
    assert started
    assert not any(process.is_running() for process in started)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("loading\nerror: no such model.\nbye\n", "no such model."),
        (
            "Traceback (most recent call last):\nRuntimeError: CUDA out of memory\n",
            "RuntimeError: CUDA out of memory",
        ),
        ("\x1b[31merror: red\x1b[0m\n", "red"),
        ("only this\n\n", "only this"),
        ("", None),
    ],
)
def test_the_cause_is_the_last_error_in_the_log(tmp_path: Path, text: str, error: str | None) -> None:
    """Without an error the last line; without a line nothing."""
    (tmp_path / "log").write_text(text)
    assert last_error(tmp_path / "log") == error
