"""Utilisation, memory, power and energy of the GPUs during a timed region, from NVML."""

from __future__ import annotations

import dataclasses
import os
import statistics
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

from whisperbench.engines.hardware import MIB, Device, Hardware, nvml, open_device

SAMPLE_SECONDS = 0.2
CLOCK_DROP = 0.85
"""A mean SM clock below this fraction of the highest one in the timed region is reported as a clock drop."""

SM_CLOCK = 1  # NVML_CLOCK_SM
ENERGY = "nvmlDeviceGetTotalEnergyConsumption"

MPS = "nvidia-cuda-mps"
"""Prefix of the process names of CUDA MPS.  NVML lists its server on each GPU that it serves; two engines that share an
H100 are 15 % faster with it."""

OF_MIG_DEVICES = ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetComputeRunningProcesses")
"""NVML functions that read a MIG device."""

SLOWDOWNS = {
    0x0000000000000008: "hardware slowdown",
    0x0000000000000020: "software thermal slowdown",
    0x0000000000000040: "hardware thermal slowdown",
    0x0000000000000080: "hardware power brake",
}
"""NVML's clock event reasons that are warnings.  The power cap (0x4) is omitted, because a GPU at full load is expected
to reach it."""


@dataclasses.dataclass(frozen=True, slots=True)
class GpuReadings:
    """Means, peaks and energy over one timed region; None if NVML has no reading.

    With several GPUs, utilisation is their mean, memory is that of the fullest, and power and energy are their sums.
    `other_processes` is the number of processes of other programs on the GPUs.  `cuda_mps` is True if CUDA MPS served
    this run's engines.
    """

    util_mean: float | None
    memory_peak_mib: float | None
    power_mean_watts: float | None
    energy_wh: float | None
    warnings: tuple[str, ...] = ()
    other_processes: int = 0
    cuda_mps: bool = False

    @property
    def disturbance(self) -> str | None:
        """The reason why the speed may be too low, or None."""
        return f"{self.other_processes} other process(es) used the GPU" if self.other_processes else None


def start_sampling(hardware: Hardware, own_pids: Callable[[], set[int]]) -> Callable[[], GpuReadings | None]:
    """Sample the GPUs in a thread; the returned function ends it and returns the readings.

    They are None without GPUs, and with GPUs on another host, which NVML cannot read.
    """
    if not hardware.devices or any(device.node for device in hardware.devices):
        return lambda: None
    gpus, stopped = [_GpuSamples(device) for device in hardware.devices], threading.Event()

    def sample() -> None:
        while True:
            own = own_pids()
            for gpu in gpus:
                gpu.sample(own)
            if stopped.wait(SAMPLE_SECONDS):
                return

    def stop() -> GpuReadings:
        energy = _sum([gpu.energy_wh() for gpu in gpus])
        stopped.set()
        thread.join()
        return _readings(gpus, energy)

    thread = threading.Thread(target=sample, name="gpu-monitor", daemon=True)
    thread.start()
    return stop


class _GpuSamples:
    """Samples of one GPU: utilisation in percent, memory in MiB, power in watts, SM clock in MHz.

    NVML has only memory and processes of a MIG device; other readings would be those of the whole GPU.
    """

    def __init__(self, device: Device) -> None:
        self._handle, self._is_mig = open_device(device.uuid), device.uuid.startswith("MIG-")
        self._energy_start = self._read(ENERGY)
        self.util: list[float] = []
        self.memory: list[float] = []
        self.power: list[float] = []
        self._clocks: list[float] = []
        self._events = 0
        self.other_pids: set[int] = set()
        self.mps_pids: set[int] = set()

    def sample(self, own_pids: set[int]) -> None:
        for values, read, name, *arguments in (
            (self.util, lambda r: float(r.gpu), "nvmlDeviceGetUtilizationRates"),
            (self.memory, lambda r: r.used / MIB, "nvmlDeviceGetMemoryInfo"),
            (self.power, lambda r: r / 1000, "nvmlDeviceGetPowerUsage"),
            (self._clocks, float, "nvmlDeviceGetClockInfo", SM_CLOCK),
        ):
            reading = self._read(name, *arguments)
            if reading is not None:
                values.append(read(reading))
        self._events |= self._read("nvmlDeviceGetCurrentClocksEventReasons") or 0
        processes = self._read("nvmlDeviceGetComputeRunningProcesses") or []
        pids = {process.pid for process in processes}
        if pids & own_pids:  # in a container NVML may list pids of the host's namespace, which cannot be compared
            for pid in pids - own_pids - self.other_pids - self.mps_pids:
                (self.mps_pids if _is_mps(pid) else self.other_pids).add(pid)

    def energy_wh(self) -> float | None:
        """Energy since the start; NVML counts millijoules."""
        energy = self._read(ENERGY)
        return None if energy is None or self._energy_start is None else (energy - self._energy_start) / 3.6e6

    def _read(self, function: str, *arguments: Any) -> Any:
        """The result of an NVML function; None if it is not supported."""
        return nvml(function, self._handle, *arguments) if not self._is_mig or function in OF_MIG_DEVICES else None

    def warnings(self) -> list[str]:
        found = [text for bit, text in SLOWDOWNS.items() if self._events & bit]
        busy = [clock for clock, util in zip(self._clocks, self.util, strict=False) if util >= 50]
        if len(busy) >= 10 and statistics.fmean(busy) < CLOCK_DROP * max(busy):
            found.append(f"clock drop: mean {statistics.fmean(busy):.0f} of {max(busy):.0f} MHz")
        return found


def reading_now(hardware: Hardware) -> GpuReadings | None:
    """One sample of the GPUs, without energy; None without a GPU."""
    gpus = [_GpuSamples(device) for device in hardware.devices]
    for gpu in gpus:
        gpu.sample(set())
    return _readings(gpus, None) if gpus else None


def _readings(gpus: Sequence[_GpuSamples], energy_wh: float | None) -> GpuReadings:
    return GpuReadings(
        util_mean=_known(statistics.fmean, (value for gpu in gpus for value in gpu.util)),
        memory_peak_mib=_known(max, (value for gpu in gpus for value in gpu.memory)),
        power_mean_watts=_sum([_known(statistics.fmean, gpu.power) for gpu in gpus]),
        energy_wh=energy_wh,
        warnings=tuple(dict.fromkeys(text for gpu in gpus for text in gpu.warnings())),
        other_processes=len({pid for gpu in gpus for pid in gpu.other_pids}),
        cuda_mps=any(gpu.mps_pids for gpu in gpus) and _has_mps_control(),
    )


def _is_mps(pid: int) -> bool:
    try:
        return str(psutil.Process(pid).name()).startswith(MPS)
    except psutil.Error:  # the process has ended, or belongs to another container
        return False


def _has_mps_control() -> bool:
    """Whether CUDA connects this process and its children to MPS; a server may also serve other programs alone."""
    return Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"), "control").exists()  # noqa: S108  # of CUDA


def _known(function: Callable[[list[float]], float], values: Iterable[float]) -> float | None:
    """A function of the values; None without any."""
    known = list(values)
    return function(known) if known else None


def _sum(values: Sequence[float | None]) -> float | None:
    """The sum; None if a value is unknown, because the sum of the others would be too low."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
