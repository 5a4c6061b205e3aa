"""One command in a process group of its own, of which nothing is left when it has ended."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from whisperbench.processes.guardian import is_gone, kill
from whisperbench.processes.watch import LAUNCHER

TICK_SECONDS = 0.5
GRACE_SECONDS = 10.0
"""What a process group gets to end by itself, after SIGTERM and again after SIGKILL."""

LAST_BYTES = 64_000
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclasses.dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended; `exit_status` is -n when signal n killed it, `timed_out` when we did for its time."""

    exit_status: int
    seconds: float
    timed_out: bool
    log: Path

    @property
    def failure(self) -> str:
        """Why it failed: the time limit, the signal, or the last error that it printed."""
        if self.timed_out:
            return f"stopped after {self.seconds:.0f} s by time_limit_minutes"
        if self.exit_status < 0:
            name = signal.Signals(-self.exit_status).name
            hint = " (the system kills what takes too much memory)" if name == "SIGKILL" else ""
            return f"killed by {name} after {self.seconds:.0f} s{hint}"
        return last_error(self.log) or f"exit status {self.exit_status} after {self.seconds:.0f} s"


def run_to_end(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    time_limit_seconds: float,
    tick: Callable[[float], None],
) -> CommandResult:
    """Run a command, its output in `log`; afterwards no process of its group lives.

    The command is told whom to follow: a flow stops when this process is gone.
    `tick(seconds)` is called twice a second.  Whatever it raises, and a signal that raises in this
    thread, ends the group too.  A `time_limit_seconds` of 0 is none.
    """
    begun, timed_out = time.perf_counter(), False
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603 - the command is ours
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**env, LAUNCHER: str(os.getpid())},
            start_new_session=True,
        )
    try:
        while child.poll() is None and not timed_out:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(TICK_SECONDS)
            seconds = time.perf_counter() - begun
            tick(seconds)
            timed_out = 0 < time_limit_seconds < seconds and child.poll() is None
    finally:
        _end_group(child)
    return CommandResult(child.wait(), time.perf_counter() - begun, timed_out, log)


def last_error(log: Path) -> str | None:
    """The last line that starts with `error:` or names an exception, else the last line; None without one."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - LAST_BYTES))
        text = stream.read().decode("utf-8", errors="replace")
    lines = [line for raw in text.splitlines() if (line := ESCAPES.sub("", raw).strip())]
    errors = [line for line in lines if re.match(r"error: |[\w.]*(Error|Exception)\b", line)]
    found = (errors or lines)[-1:]
    return found[0].removeprefix("error: ") if found else None


def _end_group(leader: subprocess.Popen[bytes]) -> None:
    """End every process of the leader's group: SIGTERM, and SIGKILL for what is left after 10 s."""
    for force in (False, True):
        if force:
            kill(_at_work(leader.pid))
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while leader.poll() is None or _at_work(leader.pid):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return


def _at_work(group: int) -> list[psutil.Process]:
    """The processes of the group that still do something; its leader may be gone."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and not is_gone(process):
                found.append(process)
    return found
