"""Configurations side by side: each lane has a GPU of its own and measures one after the other.

A lane is what a configuration's process is told: the GPU of this host that it sees.  The lanes of one host share its
cores in equal parts, and what they measure is marked as such.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from whisperbench.engines.hardware import Hardware, matching_kinds, one_kind, parts_of, seeing_only
from whisperbench.errors import ConfigError
from whisperbench.options.benchmark import BenchmarkConfig
from whisperbench.sweep.grid import Task


@dataclasses.dataclass(frozen=True, slots=True)
class Lane:
    """Where configurations are measured one after the other; `kind` None takes every configuration.

    `environment` and `cores` (none: all) are those of their processes; `beside` is how many other lanes its host has.
    """

    name: str = ""
    kind: str | None = None
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cores: tuple[int, ...] = ()
    beside: int = 0

    @property
    def warning(self) -> str:
        """What makes its figures doubtful; empty for one that is alone."""
        return f"{self.beside} other configuration(s) were measured on this host" if self.beside else ""


def lanes_of(hardware: Hardware, at_once: int, kinds: str, cluster: str) -> list[Lane]:
    """A lane per GPU, `at_once` of them (0: as many as there are); without a GPU, parts of the CPU.

    Raises:
        ConfigError: there are not so many, or none of these kinds.
    """
    if at_once == 1:
        return [Lane()]
    names = kinds_of(hardware, kinds)
    devices = [device for device in hardware.devices if device.name in names]
    count = at_once or len(devices) or 1
    if hardware.has_gpu and count > len(devices):
        raise ConfigError(f"gpus_at_once={at_once}, and there are {len(devices)} GPUs. Use 0 for all of them.")
    if cluster:
        raise ConfigError(f"gpus_at_once={at_once} is not available with ray_address. Use gpus_at_once=1.")
    cores = sorted(os.sched_getaffinity(0))
    found = []
    for i, part in enumerate(parts_of(cores, count)):
        if not devices:
            found.append(Lane(f"cores {part[0]}-{part[-1]}", None, {}, part, count - 1))
            continue
        found.append(Lane(f"GPU {devices[i].index}", devices[i].name, seeing_only(devices[i]), part, count - 1))
    return found


def kinds_of(hardware: Hardware, kinds: str) -> list[str]:
    """The GPUs' names that match; none without a GPU.

    Raises:
        ConfigError: there are GPUs, and none matches.
    """
    one_kind(hardware, kinds, 0)
    return matching_kinds(hardware, kinds)


def on_every_kind(tasks: Sequence[Task], kinds: Sequence[str]) -> tuple[Task, ...]:
    """Each task once per kind of GPU, its name followed by the kind where there are several."""

    def on(task: Task, kind: str) -> Task:
        name = task.name if len(kinds) == 1 else f"{task.name}-{kind.replace(' ', '-')}"
        return dataclasses.replace(task, config=dataclasses.replace(task.config, gpu_kinds=kind), name=name)

    return tuple(on(task, kind) for task in tasks for kind in kinds) if kinds else tuple(tasks)


class Stopped(BaseException):
    """Another lane has failed, or the sweep was stopped: what runs is ended too."""


def side_by_side(
    configs: Sequence[BenchmarkConfig], lanes: Sequence[Lane], measure: Callable[[int, Lane, threading.Event], None]
) -> list[int]:
    """Measure every configuration, by its place, on the first lane of its kind that is free, in order; the places of
    those for which no lane is left, because the nodes of their kind are gone.

    `measure` looks at the event and raises `Stopped` when it is set.  Whatever a lane raises, and a signal that raises
    here, stops the others, which are waited for.
    """
    waiting, lock, stop = list(range(len(configs))), threading.Lock(), threading.Event()

    def next_for(lane: Lane) -> int | None:
        with lock:
            fits = (place for place in waiting if lane.kind is None or configs[place].gpu_kinds == lane.kind)
            if (place := next(fits, None)) is not None:
                waiting.remove(place)
            return place

    def work(lane: Lane) -> None:
        if lane.cores:
            os.sched_setaffinity(0, lane.cores)  # of this thread, and so of the processes that it starts
        try:
            while not stop.is_set() and (place := next_for(lane)) is not None:
                measure(place, lane, stop)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(len(lanes), thread_name_prefix="lane") as pool:
        working = [pool.submit(work, lane) for lane in lanes]
        try:
            wait(working)
        finally:
            stop.set()
    failures = [error for each in working if (error := each.exception()) is not None]
    for error in sorted(failures, key=lambda error: isinstance(error, Stopped)):
        raise error
    return waiting
