"""Progress of an engine: its longest pause, and the end of an engine that stalls."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from whisperbench.errors import EngineError
from whisperbench.processes.guardian import descendants, kill

if TYPE_CHECKING:
    import psutil

    from whisperbench.corpus.corpus import Utterance
    from whisperbench.engines.base import Engine

MIN_PAUSE_SECONDS = 30.0
"""A shorter pause does not make a pass invalid."""
UNUSUAL_FACTOR = 3.0
"""Nor does one of less than this many times the longest of the warm-up: a large model on a CPU needs long steps."""
POLL_SECONDS = 1.0


class Heartbeat:
    """Ticks with each utterance that an engine takes, each step and each result; from one thread."""

    def __init__(self) -> None:
        self.ticks = 0
        self.longest_pause = 0.0
        self._last = time.perf_counter()

    def start(self) -> None:
        """Measure pauses from now on, in seconds."""
        self.longest_pause, self._last = 0.0, time.perf_counter()

    def tick(self) -> None:
        """Record progress."""
        now = time.perf_counter()
        self.paused(now - self._last)
        self._last = now
        self.ticks += 1

    def paused(self, seconds: float) -> None:
        """Record a pause without progress."""
        self.longest_pause = max(self.longest_pause, seconds)

    def of(self, utterances: Iterable[Utterance]) -> Iterator[Utterance]:
        """The utterances; each one that is taken is a tick."""
        for utterance in utterances:
            self.tick()
            yield utterance


class StallWatchdog:
    """Around an engine's work: end its processes when it makes no progress for `limit_seconds` (0: no limit).

    An engine that may work for long between two results has a `heartbeat` of its own, which ticks meanwhile.

    Raises:
        EngineError: the processes were ended; the message says after how long.
    """

    def __init__(self, engine: Engine, limit_seconds: float) -> None:
        self.heartbeat = engine.heartbeat or Heartbeat()
        self.stalled = False
        self._engine, self._limit_seconds = engine, limit_seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="stall-watch", daemon=True)

    def __enter__(self) -> Self:
        self.heartbeat.start()
        if self._limit_seconds:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._limit_seconds:
            self._thread.join()
        if self.stalled and isinstance(error, EngineError):
            raise EngineError(
                f"The engine made no progress for {self._limit_seconds / 60:g} minutes and was ended: its process was "
                "stopped, or the GPU hangs (look at `nvidia-smi` and `dmesg`). stall_minutes is the limit.",
                error.log,
            ) from error

    def unusual_pause(self, usual: float) -> str | None:
        """Why the pass is invalid: its longest pause is not explained by its work; `usual` is that of the warm-up."""
        pause = self.heartbeat.longest_pause
        limit = max(MIN_PAUSE_SECONDS, UNUSUAL_FACTOR * usual)
        return f"the engine made no progress for {pause:.0f} s" if pause >= limit else None

    def _look(self) -> None:
        look_seconds = min(POLL_SECONDS, self._limit_seconds / 4)
        beats, silent, looked = self.heartbeat.ticks, 0.0, time.perf_counter()
        while not self._done.wait(look_seconds):
            now, found = time.perf_counter(), self.heartbeat.ticks
            # Where this process itself was stopped for a while, that while is no silence of the engine's.
            silent = silent + min(now - looked, 2 * look_seconds) if found == beats else 0.0
            beats, looked = found, now
            if silent >= self._limit_seconds:
                self.stalled = True
                kill(self._processes())
                return

    def _processes(self) -> Iterable[psutil.Process]:
        import psutil

        for pid in self._engine.pids() - {os.getpid()}:
            with contextlib.suppress(psutil.NoSuchProcess):
                yield psutil.Process(pid)


@contextlib.contextmanager
def start_limit(before: Iterable[psutil.Process], limit_seconds: float) -> Iterator[None]:
    """End every process that has started since `before` if the block takes longer (0: no limit).

    Raises:
        EngineError: the processes were ended; the message names the limit.
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
            "or the GPU hangs: look at `nvidia-smi` and `dmesg`. stall_minutes=0 removes the limit.",
            error.log,
        ) from error
    finally:
        timer.cancel()
