"""Load of this machine by other programs during a timed region.

CPU times and processes are read before and after the region, so that the monitor does not work in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import PurePath

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


def start_measuring(own_pids: Callable[[], set[int]]) -> Callable[[], MachineLoad | None]:
    """Read CPU times and processes; the returned function reads them again and returns the load since the first time.

    Its result is None after less than MIN_SECONDS.  Several engines on other hosts are not covered.
    """
    benchmark = other_benchmark_runs()
    own_before, all_before, started = _own_seconds(own_pids()), busy_seconds(), time.perf_counter()

    def load() -> MachineLoad | None:
        seconds = time.perf_counter() - started
        if seconds < MIN_SECONDS:
            return None
        busy = busy_seconds() - all_before
        own = sum(value - own_before.get(pid, 0.0) for pid, value in _own_seconds(own_pids()).items())
        cores, other = len(os.sched_getaffinity(0)), max(0.0, busy - own)
        return MachineLoad(cores, own / seconds, other / seconds, benchmark or other_benchmark_runs())

    return load


def _own_seconds(pids: set[int]) -> dict[int, float]:
    """CPU time of these processes and of the descendants of this one, including children that have ended."""
    found: dict[int, float] = {}
    for pid in pids.union(child.pid for child in psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.Error):  # it has ended
            times = psutil.Process(pid).cpu_times()
            found[pid] = times.user + times.system + times.children_user + times.children_system
    return found


def busy_seconds() -> float:
    """CPU time that all programs, the kernel and the hypervisor have used on the cores of this process."""
    cores = os.sched_getaffinity(0)
    idle = ("idle", "iowait", "guest", "guest_nice")  # `user` and `nice` include guests
    found = 0.0
    for core, times in enumerate(psutil.cpu_times(percpu=True)):
        if core in cores:
            found += sum(seconds for kind, seconds in times._asdict().items() if kind not in idle)
    return found


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
