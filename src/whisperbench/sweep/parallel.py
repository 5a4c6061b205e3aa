"""Configurations measured in parallel on this host, each on one GPU or on a part of the cores."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.engines.hardware import Hardware, split_cores
from whisperbench.errors import ConfigError
from whisperbench.processes.group import CommandResult, run_to_end


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceSlot:
    """A device that measures one configuration at a time; with `hardware` None it measures every configuration.

    Its processes use `hardware` and `cores` (empty: all); `neighbours` is the number of other slots on the same host.
    `run` runs a command on the device until it has ended.
    """

    name: str = ""
    hardware: Hardware | None = None
    cores: tuple[int, ...] = ()
    neighbours: int = 0
    run: Callable[..., CommandResult] = run_to_end
    is_available: Callable[[], bool] = lambda: True

    @property
    def environment(self) -> Mapping[str, str]:
        return self.hardware.environment if self.hardware else {}

    def measures(self, config: BenchmarkConfig) -> bool:
        """Whether the configuration may run here: GPUs measure only configurations for their type."""
        return not (self.hardware and self.hardware.has_gpu) or config.gpu_type == self.hardware.gpu_name

    @property
    def warning(self) -> str:
        """A warning for the runs of this slot; empty without neighbours."""
        return f"{self.neighbours} other configuration(s) were measured on this host" if self.neighbours else ""


class Stopped(BaseException):
    """The measurement on another slot has failed, or the sweep was interrupted."""


def device_slots(hardware: Hardware, count: int | None, types: Sequence[str]) -> list[DeviceSlot]:
    """`count` slots (None: one per GPU) with equally many cores, each with a GPU of these types if the host has GPUs.

    Raises:
        ConfigError: the host has too few GPUs of these types.
    """
    if count == 1:
        return [DeviceSlot()]
    devices = [device for device in hardware.devices if device.name in types]
    count = count or len(devices) or 1
    if hardware.has_gpu and count > len(devices):
        raise ConfigError(f"parallel_runs={count} is too large: {len(devices)} GPUs were found. Use parallel_runs=all.")
    cores = sorted(os.sched_getaffinity(0))
    parts = split_cores(cores[: len(cores) // count * count] or cores, count)
    slots = []
    for i, part in enumerate(parts):
        own = dataclasses.replace(
            hardware, devices=tuple(devices[i : i + 1]), cpu_cores=min(len(part), hardware.cpu_cores)
        )
        name = f"GPU {own.devices[0].index}" if own.has_gpu else f"cores {part[0]}-{part[-1]}"
        slots.append(DeviceSlot(name, own, part, count - 1))
    return slots


def run_in_parallel(
    configs: Sequence[BenchmarkConfig],
    slots: Sequence[DeviceSlot],
    measure: Callable[[int, DeviceSlot, threading.Event], None],
) -> list[int]:
    """Call `measure` with the index of each configuration, on the first free slot of its GPU type.

    Returns the indices of the configurations that were not measured because all slots of their type became
    unavailable.  `measure` must raise `Stopped` when the event is set.  An error of one slot, or a signal that raises
    in this thread, stops the other slots before it is raised.
    """
    waiting, lock, stop = list(range(len(configs))), threading.Lock(), threading.Event()

    def next_index(slot: DeviceSlot) -> int | None:
        with lock:
            fitting = (i for i in waiting if slot.measures(configs[i]))
            if (index := next(fitting, None)) is not None:
                waiting.remove(index)
            return index

    def work(slot: DeviceSlot) -> None:
        if slot.cores:
            os.sched_setaffinity(0, slot.cores)  # the processes that this thread starts inherit it
        try:
            while not stop.is_set() and slot.is_available() and (index := next_index(slot)) is not None:
                measure(index, slot, stop)
        except BaseException:
            stop.set()
            raise

    if list(slots) == [DeviceSlot()]:
        work(slots[0])  # in this thread, because it receives the signals
        return waiting
    with ThreadPoolExecutor(len(slots), thread_name_prefix="slot") as pool:
        futures = [pool.submit(work, slot) for slot in slots]
        try:
            wait(futures)
        finally:
            stop.set()
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, Stopped)):
        raise error
    return waiting
