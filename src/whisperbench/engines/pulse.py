"""Whether an engine's work goes on: how long it pauses, and the end of one that has stopped for good."""

from __future__ import annotations

import abc
import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from whisperbench.errors import EngineError
from whisperbench.supervise.orphans import descendants, kill

if TYPE_CHECKING:
    import psutil

    from whisperbench.engines.seam import Clip, Engine

WORKS_CPU_SHARE, WORKS_BYTES_PER_SECOND = 0.02, 65_536
"""A start that goes on takes more of a core, or reads more: who waits for a process that is stopped takes less."""
FROZEN_SECONDS = 30.0
"""A longer pause is no part of any engine's work: the speed of a pass that holds one is no measurement."""
UNUSUAL = 3.0
"""Unless the warm-up, which is short, already held a third of it: a large model on a CPU takes its time for a step."""
LOOK_SECONDS = 1.0


class Pulse:
    """Beats with everything that an engine takes, does and hands out; from one thread."""

    def __init__(self) -> None:
        self.beats = 0
        self.longest_pause = 0.0
        self._last = time.perf_counter()

    def start(self) -> None:
        """Measure pauses from now on, in seconds."""
        self.longest_pause, self._last = 0.0, time.perf_counter()

    def beat(self) -> None:
        """Something went on."""
        now = time.perf_counter()
        self.paused(now - self._last)
        self._last = now
        self.beats += 1

    def paused(self, seconds: float) -> None:
        """Nothing has gone on for so long."""
        self.longest_pause = max(self.longest_pause, seconds)

    def of(self, clips: Iterable[Clip]) -> Iterator[Clip]:
        """The clips; each that is taken is a beat."""
        for clip in clips:
            self.beat()
            yield clip


class _SilenceWatch(abc.ABC):
    """A `with` block that ends processes when `signs` stay the same for `limit_seconds` (0: it never does).

    Raises:
        EngineError: they were ended; the message says after how long.
    """

    what = "The engine"

    def __init__(self, limit_seconds: float) -> None:
        self.stalled = False
        self._limit_seconds = limit_seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="stall-watch", daemon=True)

    @abc.abstractmethod
    def signs(self) -> int:
        """What grows while something goes on."""

    @abc.abstractmethod
    def processes(self) -> Iterable[psutil.Process]:
        """Which processes are ended."""

    def __enter__(self) -> Self:
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
                f"{self.what} made no progress for {self._limit_seconds / 60:g} minutes and was ended: its process was "
                "stopped, or the GPU hangs (look at `nvidia-smi` and `dmesg`). stall_minutes is the limit.",
                error.log,
            ) from error

    def _look(self) -> None:
        look_seconds = min(LOOK_SECONDS, self._limit_seconds / 4)
        signs, silent, looked = self.signs(), 0.0, time.perf_counter()
        while not self._done.wait(look_seconds):
            now, found = time.perf_counter(), self.signs()
            # Where this process itself was stopped for a while, that while is no silence of the engine's.
            silent = silent + min(now - looked, 2 * look_seconds) if found == signs else 0.0
            signs, looked = found, now
            if silent >= self._limit_seconds:
                self.stalled = True
                kill(self.processes())
                return


class StallWatch(_SilenceWatch):
    """Around an engine's work; one that works long between two texts has a `pulse` of its own that beats meanwhile."""

    def __init__(self, engine: Engine, limit_seconds: float) -> None:
        super().__init__(limit_seconds)
        self.pulse = engine.pulse or Pulse()
        self._engine = engine

    def __enter__(self) -> Self:
        self.pulse.start()
        return super().__enter__()

    def signs(self) -> int:
        return self.pulse.beats

    def processes(self) -> Iterable[psutil.Process]:
        import psutil

        for pid in self._engine.pids() - {os.getpid()}:
            with contextlib.suppress(psutil.NoSuchProcess):
                yield psutil.Process(pid)

    def frozen_seconds(self, usual: float) -> float | None:
        """The longest pause, where it is one that no work explains; `usual` is the longest of the warm-up."""
        pause = self.pulse.longest_pause
        return pause if pause >= max(FROZEN_SECONDS, UNUSUAL * usual) else None


class StartWatch(_SilenceWatch):
    """Around an engine's start: what has started since `before` computes, reads, or starts something.

    A weights' file that takes minutes on a slow disk is read meanwhile.  The log says too little to go by: nothing
    while large weights are read, and now and then that it waits where a worker is stopped.
    """

    what = "The start of the engine"

    def __init__(self, before: Iterable[psutil.Process], limit_seconds: float) -> None:
        super().__init__(limit_seconds)
        self._before, self._steps = set(before), 0
        self._used: dict[psutil.Process, tuple[float, int]] = {}
        self._looked = time.perf_counter()

    def signs(self) -> int:
        now, used = time.perf_counter(), {process: _used_by(process) for process in self.processes()}
        since = [(used[each], self._used[each]) for each in used.keys() & self._used.keys()]
        seconds, cpu, read = now - self._looked, sum(a[0] - b[0] for a, b in since), sum(a[1] - b[1] for a, b in since)
        works = cpu > WORKS_CPU_SHARE * seconds or read > WORKS_BYTES_PER_SECOND * seconds
        if works or used.keys() != self._used.keys() or not used:  # before there are any, nobody is waited for
            self._steps += 1
        self._used, self._looked = used, now
        return self._steps

    def processes(self) -> Iterable[psutil.Process]:
        return descendants() - self._before


def _used_by(process: psutil.Process) -> tuple[float, int]:
    """Seconds of CPU, and bytes that were read, from a disk or with the help of its cache."""
    import psutil

    try:
        with process.oneshot():
            cpu, read = process.cpu_times(), process.io_counters()
        return cpu.user + cpu.system, read.read_bytes + read.read_chars
    except (psutil.Error, OSError):  # it has ended meanwhile
        return 0.0, 0
