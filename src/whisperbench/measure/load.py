"""Load of this machine by other programs during a timed region.

CPU times and processes are read before and after the region, so that the monitor does not work in it.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import PurePath
from types import TracebackType
from typing import Self

import psutil

SWEEP = "WHISPERBENCH_SWEEP"
"""Environment variable with the id of a sweep: its benchmarks may measure concurrently, on several GPUs of a host."""

MIN_SECONDS = 1.0
"""Shorter regions are not assessed, because the kernel counts CPU time in ticks of 10 ms."""
MAX_OTHER_PERCENT = 5.0
"""Use of the cores by other programs, in percent, up to which a speed is ranked if the cores are busy.

It equals the default of compare's `max_slowdown`.  On 16 cores of an Intel Xeon (one H200's host) that were all busy,
other programs with 11 % of the CPU time cost 8 %, and with 50 % they cost 40 %.
"""
BUSY_PERCENT = 85.0
"""Use of the cores by all programs, in percent, above which other programs slow the benchmark down.

On the same host a program on 8 cores kept its rate (96 to 113 %) beside programs on up to 6 other cores, with 88 % of
the cores busy.  It lost 10 % when all cores were busy.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class MachineLoad:
    """Mean use of the cores of this process in one timed region, in cores.

    `own` is the use by this process and its engine, `other` by all other programs.  `benchmark` is True if another
    benchmark ran on this host before or after the region.
    """

    cores: int
    own: float
    other: float
    benchmark: bool = False

    @property
    def other_percent(self) -> float:
        return 100 * self.other / self.cores

    @property
    def disturbance(self) -> str | None:
        """The reason why the speed may be too low, or None."""
        if self.benchmark:
            return "another benchmark ran on this host"
        if self.other_percent > MAX_OTHER_PERCENT and self.own + self.other > BUSY_PERCENT / 100 * self.cores:
            return f"other programs used {self.other_percent:.0f} % of the {self.cores} cores"
        return None


class LoadMonitor:
    """Context manager around a timed region; at its end `load` is set, unless the region is shorter than MIN_SECONDS.

    Several engines on other hosts are not covered.
    """

    def __init__(self, own_pids: Callable[[], set[int]]) -> None:
        self.load: MachineLoad | None = None
        self._own_pids = own_pids

    def __enter__(self) -> Self:
        self._benchmark = other_benchmark_runs()
        self._own, self._all, self._started = self._own_seconds(), busy_seconds(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._started
        if error is not None or seconds < MIN_SECONDS:
            return
        busy, after = busy_seconds() - self._all, self._own_seconds()
        own = sum(value - self._own.get(pid, 0.0) for pid, value in after.items())
        self.load = MachineLoad(
            cores=len(os.sched_getaffinity(0)),
            own=own / seconds,
            other=max(0.0, busy - own) / seconds,
            benchmark=self._benchmark or other_benchmark_runs(),
        )

    def _own_seconds(self) -> dict[int, float]:
        """CPU time of each process of this program and its engine, including its children that have ended."""
        children = psutil.Process().children(recursive=True)
        found: dict[int, float] = {}
        for pid in self._own_pids().union(child.pid for child in children):
            try:
                times = psutil.Process(pid).cpu_times()
            except psutil.Error:  # it has ended
                continue
            found[pid] = times.user + times.system + times.children_user + times.children_system
        return found


def busy_seconds() -> float:
    """CPU time that all programs, the kernel and the hypervisor have used on the cores of this process."""
    cores = os.sched_getaffinity(0)
    times = psutil.cpu_times(percpu=True)
    idle = ("idle", "iowait", "guest", "guest_nice")  # `user` and `nice` include guests
    return sum(
        sum(value for name, value in times[core]._asdict().items() if name not in idle)
        for core in cores
        if core < len(times)
    )


def other_benchmark_runs() -> bool:
    """Whether a benchmark that is neither this one nor of the same sweep runs on this host, for any user."""
    this = psutil.Process()
    family = {this.pid, *(each.pid for each in (*this.parents(), *this.children(recursive=True)))}
    return any(
        is_benchmark(process.info["cmdline"] or ()) and not _of_this_sweep(process)
        for process in psutil.process_iter(["cmdline"])
        if process.pid not in family
    )


def is_benchmark(words: Sequence[str]) -> bool:
    """Whether a command line is `whisperbench benchmark …`, or that command as a module or an entry point of MLflow."""
    pairs = ((PurePath(first).name, second) for first, second in itertools.pairwise(words))
    return "flows.benchmark" in words or ("whisperbench", "benchmark") in pairs


def _of_this_sweep(process: psutil.Process) -> bool:
    """Whether a process belongs to the sweep that started this process; False if its environment cannot be read."""
    try:
        return SWEEP in os.environ and process.environ().get(SWEEP) == os.environ[SWEEP]
    except psutil.Error:
        return False
