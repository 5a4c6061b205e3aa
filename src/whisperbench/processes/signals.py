"""Orderly exit after a signal: every `finally` block runs, and after a time limit the exit is forced.

docs/reliability.md describes all watchers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

import psutil

from whisperbench.processes.guardian import descendants, kill
from whisperbench.processes.watch import launcher, watch_processes

ENGINE_SECONDS = 2.0  # after a signal, until the engine's processes are killed
EXIT_SECONDS = 30.0  # after a signal, until this process exits even if its run is still open

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP was received; raised in the main thread, so that every `finally` runs."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


@contextlib.contextmanager
def signals_raise() -> Iterator[list[Interrupted]]:
    """Inside the block the first signal raises `Interrupted`; the end of the launcher has the effect of SIGTERM.

    Yields the list of exceptions raised so far.  If the block has suppressed the exception, it is raised again at the
    end.  A signal that is already ignored (`nohup`) stays ignored.
    """
    raised: list[Interrupted] = []
    started_before = descendants()
    done = threading.Event()
    stop_watch = None

    def handler(number: int, _frame: FrameType | None) -> NoReturn:
        raised.append(Interrupted(number))
        for each in handlers:
            signal.signal(each, signal.SIG_IGN)  # a second signal must not interrupt the closing of the engine
        threading.Thread(
            target=_force_exit, args=(raised[0], done, started_before), name="force-exit", daemon=True
        ).start()
        raise raised[0]

    handlers = {number: signal.getsignal(number) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
    try:
        for number in handlers:
            signal.signal(number, handler)
        if (parent := launcher()) is not None:
            stop_watch = watch_processes([parent], _stop)
        yield raised
    finally:
        done.set()
        if stop_watch:
            stop_watch()
        for number, before in handlers.items():
            signal.signal(number, before)
    if raised:  # suppressed in the block, for example by a decoder that calls back into Python
        raise raised[0]


def _force_exit(interrupted: Interrupted, done: threading.Event, started_before: set[psutil.Process]) -> None:
    """Kill the engine and later exit, in case a library has suppressed `Interrupted` or closing the engine hangs."""
    if done.wait(ENGINE_SECONDS):
        return
    kill(descendants() - started_before)
    if not done.wait(EXIT_SECONDS - ENGINE_SECONDS):
        os._exit(interrupted.exit_status)


def _stop() -> None:
    """Send SIGTERM to this process, because the `mlflow run` or the sweep that started it has ended."""
    sys.stderr.write("Stopping, because the process that started this command has ended.\n")
    os.kill(os.getpid(), signal.SIGTERM)
