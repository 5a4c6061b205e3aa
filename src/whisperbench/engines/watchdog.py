"""Progress of an engine: measure its longest pause, and end an engine that stalls or does not start."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import psutil

from whisperbench.errors import EngineError
from whisperbench.processes.guardian import descendants, kill

if TYPE_CHECKING:
    from whisperbench.corpus.corpus import Utterance
    from whisperbench.engines.base import Engine

MIN_PAUSE_SECONDS = 30.0
"""A pass is invalid only if a pause is at least this long."""
UNUSUAL_FACTOR = 3.0
"""The pause must also be this many times the longest pause of the warm-up, because a large model on a CPU has long
steps."""
POLL_SECONDS = 1.0
START_SECONDS = 1800.0
"""Limit of a start; large weights on a slow disk take some minutes."""


class Heartbeat:
    """Counts progress (utterances read, steps and results) and measures the longest pause; for one thread."""

    def __init__(self) -> None:
        self.ticks = 0
        self.start()

    def start(self) -> None:
        """Begin to measure pauses, in seconds."""
        self.longest_pause, self._last = 0.0, time.perf_counter()

    def tick(self) -> None:
        """Record progress."""
        now = time.perf_counter()
        self.paused(now - self._last)
        self._last = now
        self.ticks += 1

    def paused(self, seconds: float) -> None:
        """Record a time without progress, in seconds."""
        self.longest_pause = max(self.longest_pause, seconds)

    def of(self, utterances: Iterable[Utterance]) -> Iterator[Utterance]:
        """Yield the utterances, with a tick for each."""
        for utterance in utterances:
            self.tick()
            yield utterance

    def unusual_pause(self, usual: float) -> str | None:
        """Reason why the pass is invalid, if its longest pause is unusual; `usual` is the longest of the warm-up."""
        limit = max(MIN_PAUSE_SECONDS, UNUSUAL_FACTOR * usual)
        if self.longest_pause < limit:
            return None
        return f"the engine made no progress for {self.longest_pause:.0f} s"


@contextlib.contextmanager
def stall_limit(engine: Engine, limit_seconds: float) -> Iterator[Heartbeat]:
    """Kill the engine's processes if it makes no progress for `limit_seconds` (0: no limit) in this block.

    Progress is a tick of the yielded heartbeat, which is that of the engine if it has one.

    Raises:
        EngineError: the processes were killed; the message has the limit.
    """
    heartbeat = engine.heartbeat or Heartbeat()
    heartbeat.start()

    def processes() -> set[psutil.Process]:
        return {process for process in descendants() if process.pid in engine.pids()}

    with _limit(limit_seconds, lambda: heartbeat.ticks, processes, "made no progress for"):
        yield heartbeat


@contextlib.contextmanager
def start_limit(before: set[psutil.Process], limit_seconds: float) -> Iterator[None]:
    """Kill every descendant that is not in `before` if the block takes longer than `limit_seconds` (0: no limit).

    Raises:
        EngineError: the processes were killed; the message has the limit.
    """
    with _limit(limit_seconds, lambda: 0, lambda: descendants() - before, "did not start within"):
        yield


@contextlib.contextmanager
def _limit(
    seconds: float, ticks: Callable[[], int], processes: Callable[[], set[psutil.Process]], what: str
) -> Iterator[None]:
    """Kill the processes if `ticks` does not change for so many seconds (0: no limit), and explain the error."""
    done, expired = threading.Event(), threading.Event()

    def watch() -> None:
        interval = min(POLL_SECONDS, seconds / 4)
        last, pause, polled = ticks(), 0.0, time.perf_counter()
        while not done.wait(interval):
            now, found = time.perf_counter(), ticks()
            # Time in which this process itself was stopped does not count.
            pause = pause + min(now - polled, 2 * interval) if found == last else 0.0
            last, polled = found, now
            if pause >= seconds:
                expired.set()
                kill(processes())
                return

    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    if seconds:
        thread.start()
    try:
        yield
    except EngineError as error:
        if not expired.is_set():
            raise
        raise EngineError(
            f"The engine {what} {seconds / 60:g} minutes and was ended. Its process was stopped, or the GPU hangs: "
            "check `nvidia-smi` and `dmesg`. stall_minutes=none removes the limit.",
            error.log,
        ) from error
    finally:
        done.set()
        if seconds:
            thread.join()
