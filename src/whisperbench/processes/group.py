"""Run a command in a new process group, and end all processes of that group."""

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

from whisperbench.files import tail
from whisperbench.processes.guardian import is_gone, kill
from whisperbench.processes.watch import LAUNCHER

TICK_SECONDS = 0.5
GRACE_SECONDS = 10.0  # for a process group to end, after SIGTERM and again after SIGKILL

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclasses.dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended; `exit_status` is -n if signal n killed it, `timed_out` if it exceeded its time limit."""

    exit_status: int
    seconds: float
    timed_out: bool
    log: Path

    @property
    def failure(self) -> str:
        """The time limit, the signal, or the last error that it printed."""
        if self.timed_out:
            return f"stopped after {self.seconds:.0f} s by time_limit_minutes"
        if self.exit_status < 0:
            name = signal.Signals(-self.exit_status).name
            hint = " (probably by the kernel, for lack of memory)" if name == "SIGKILL" else ""
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
    """Run a command with its output in `log`; afterwards no process of its group is running.

    The command stops when this process ends, because its environment variable LAUNCHER holds this process id.  It is
    ended after `time_limit_seconds` (0: no limit), and if `tick`, which is called every TICK_SECONDS with the seconds
    since the start, or a signal handler raises an exception in this thread.
    """
    begun, timed_out = time.perf_counter(), False
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603 - from this project
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
    """The last line that starts with `error:` or names an exception, else the last line; None for an empty log."""
    lines = [line for raw in tail(log).splitlines() if (line := ESCAPES.sub("", raw).strip())]
    errors = [line for line in lines if re.match(r"error: |[\w.]*(Error|Exception)\b", line)]
    found = (errors or lines)[-1:]
    return found[0].removeprefix("error: ") if found else None


def _end_group(leader: subprocess.Popen[bytes]) -> None:
    """End every process of the leader's group by SIGTERM, and after GRACE_SECONDS by SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGTERM)
    if not _has_ended(leader):
        kill(_running(leader.pid))
        _has_ended(leader)


def _has_ended(leader: subprocess.Popen[bytes]) -> bool:
    """Wait at most GRACE_SECONDS for all processes of the group to end; return whether they did."""
    deadline = time.monotonic() + GRACE_SECONDS
    while leader.poll() is None or _running(leader.pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _running(group: int) -> list[psutil.Process]:
    """The running processes of a group, whose leader may have ended."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and not is_gone(process):
                found.append(process)
    return found
