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


class TestCommand:
    def run_here(self, directory: Path, program: str, **more: Any) -> Any:
        more = {"time_limit_seconds": 0.0, "tick": lambda _seconds: None, **more}
        command = [sys.executable, "-c", program]
        return run_to_end(command, env=dict(os.environ), log=directory / "log", **more)

    def test_nothing_of_its_group_is_left(self, tmp_path: Path) -> None:
        """A process that the command left behind is ended."""
        mark = f"600.{uuid.uuid4().int % 10**9}"
        program = f"import subprocess; subprocess.Popen(['sleep', '{mark}'])"
        assert self.run_here(tmp_path, program).exit_status == 0
        assert not [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[-1:] == [mark]]

    def test_one_that_ignores_sigterm(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Is killed after its time."""
        monkeypatch.setattr(group, "GRACE_SECONDS", 0.5)
        mark = f"600.{uuid.uuid4().int % 10**9}"
        stubborn = f"['bash', '-c', 'trap \"\" TERM; echo ready; exec sleep {mark}']"
        program = f"import subprocess; subprocess.Popen({stubborn}, stdout=subprocess.PIPE).stdout.readline()"
        assert self.run_here(tmp_path, program).exit_status == 0
        assert not [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[-1:] == [mark]]

    def test_what_tick_raises_ends_it(self, tmp_path: Path) -> None:
        """As a signal does that raises in the thread that waits."""
        before = {child.pid for child in psutil.Process().children()}  # other tests' servers
        pids: list[int] = []

        def tick(_seconds: float) -> None:
            pids.extend(child.pid for child in psutil.Process().children() if child.pid not in before)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.run_here(tmp_path, "import time; time.sleep(600)", tick=tick)
        assert pids
        assert not any(psutil.pid_exists(pid) for pid in pids)

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
    def test_the_cause_is_the_last_error_in_the_log(self, tmp_path: Path, text: str, error: str | None) -> None:
        """Without an error the last line; without a line nothing."""
        (tmp_path / "log").write_text(text)
        assert last_error(tmp_path / "log") == error
