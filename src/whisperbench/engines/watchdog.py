"""Progress of an engine: measure its longest pause, and end an engine that stalls or does not start."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Self

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


class Heartbeat:
    """Counts progress (utterances read, steps and results) and measures the longest pause; for one thread."""

    def __init__(self) -> None:
        self.ticks = 0
        self.longest_pause = 0.0
        self._last = time.perf_counter()

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


class StallWatchdog:
    """Context manager: kill the engine's processes if it makes no progress for `limit_seconds` (0: no limit).

    Progress is a tick of the engine's heartbeat, or of a new one if the engine has none.

    Raises:
        EngineError: the processes were killed; the message has the limit.
    """

    def __init__(self, engine: Engine, limit_seconds: float) -> None:
        self.heartbeat = engine.heartbeat or Heartbeat()
        self.stalled = False
        self._engine, self._limit_seconds = engine, limit_seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stall-watchdog", daemon=True)

    def __enter__(self) -> Self:
        self.heartbeat.start()
        if self._limit_seconds:
            self._thread.start()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._done.set()
        if self._limit_seconds:
            self._thread.join()
        if self.stalled and isinstance(error, EngineError):
            raise EngineError(
                f"The engine made no progress for {self._limit_seconds / 60:g} minutes and was ended. Its process was "
                "stopped, or the GPU hangs: check `nvidia-smi` and `dmesg`. stall_minutes sets the limit.",
                error.log,
            ) from error

    def unusual_pause(self, usual: float) -> str | None:
        """Reason why the pass is invalid, if its longest pause is unusual; `usual` is the longest of the warm-up."""
        pause = self.heartbeat.longest_pause
        limit = max(MIN_PAUSE_SECONDS, UNUSUAL_FACTOR * usual)
        return f"the engine made no progress for {pause:.0f} s" if pause >= limit else None

    def _watch(self) -> None:
        interval = min(POLL_SECONDS, self._limit_seconds / 4)
        ticks, pause, polled = self.heartbeat.ticks, 0.0, time.perf_counter()
        while not self._done.wait(interval):
            now, found = time.perf_counter(), self.heartbeat.ticks
            # Time in which this process itself was stopped does not count.
            pause = pause + min(now - polled, 2 * interval) if found == ticks else 0.0
            ticks, polled = found, now
            if pause >= self._limit_seconds:
                self.stalled = True
                for pid in self._engine.pids() - {os.getpid()}:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        kill([psutil.Process(pid)])
                return


@contextlib.contextmanager
def start_limit(before: Iterable[psutil.Process], limit_seconds: float) -> Iterator[None]:
    """Kill every descendant that is not in `before` if the block takes longer than `limit_seconds` (0: no limit).

    Raises:
        EngineError: the processes were killed; the message has the limit.
    """
    expired = threading.Event()

    def end() -> None:
        expired.set()
        kill(descendants() - set(before))

    timer = threading.Timer(limit_seconds, end)
    timer.daemon = True
    if limit_seconds:
        timer.start()
    try:
        yield
    except EngineError as error:
        if not expired.is_set():
            raise
        raise EngineError(
            f"The engine did not start within {limit_seconds / 60:g} minutes and was ended. Its process was stopped, "
            "or the GPU hangs: check `nvidia-smi` and `dmesg`. stall_minutes=none removes the limit.",
            error.log,
        ) from error
    finally:
        timer.cancel()
