"""What the GPUs did while the clock ran: NVML's readings, absent without a GPU."""

from __future__ import annotations

import dataclasses
import statistics
import threading
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from whisperbench.engines.hardware import MIB, Hardware, open_device

SAMPLE_SECONDS = 0.2
CLOCK_DROP = 0.85
"""A mean SM clock below this share of the highest one seen in the region counts as a drop."""

MPS = "nvidia-cuda-mps"
"""How the processes of CUDA MPS are called.  Its server is on a GPU that it serves, beside those whose kernels it runs
side by side (two engines on an H100: 15 % more)."""

SLOWDOWNS = {
    0x0000000000000008: "hardware slowdown",
    0x0000000000000020: "software thermal slowdown",
    0x0000000000000040: "hardware thermal slowdown",
    0x0000000000000080: "hardware power brake",
}
"""NVML's clock event reasons that say the GPU was held back.  The power cap (0x4) is not among
them: a GPU at full load is expected to run at its cap."""


@dataclasses.dataclass(frozen=True, slots=True)
class GpuReadings:
    """Means, peaks and energy over one timed region; None where NVML does not tell.  `cuda_mps`: it served the GPUs.

    Of several GPUs: utilisation is their mean, memory that of the fullest, power and energy their sum.
    """

    util_mean: float | None
    memory_peak_mib: float | None
    power_mean_watts: float | None
    energy_wh: float | None
    warnings: tuple[str, ...] = ()
    cuda_mps: bool = False


class GpuMonitor:
    """Samples the GPUs in a thread while a `with` block runs; `readings` afterwards, None without a GPU, or with one of
    another host.

    Other processes that hold GPU memory inside the region, slowdowns and clock drops become warnings:
    a measurement taken beside somebody else's job is not one to rank.
    """

    def __init__(self, hardware: Hardware, own_pids: Callable[[], set[int]]) -> None:
        self.readings: GpuReadings | None = None
        self._own_pids = own_pids
        here = not any(device.node for device in hardware.devices)  # NVML sees this host alone: a part is no sum
        self._gpus = [_GpuSamples(str(device.index)) for device in hardware.devices if here]
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        if self._gpus:
            for gpu in self._gpus:
                gpu.start()
            self._thread = threading.Thread(target=self._sample_until_stopped, name="gpu-monitor", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._gpus:
            return
        energy = [gpu.energy_wh() for gpu in self._gpus]
        self._stop.set()
        self._thread.join()
        self.readings = _readings(self._gpus, _sum(energy))

    def _sample_until_stopped(self) -> None:
        while True:
            own = self._own_pids()
            for gpu in self._gpus:
                gpu.sample(own)
            if self._stop.wait(SAMPLE_SECONDS):
                return


class _GpuSamples:
    """The samples of one GPU."""

    def __init__(self, name: str) -> None:
        self._handle = open_device(name)
        self._energy_start: float | None = None
        self.util: list[float] = []
        self.memory: list[float] = []
        self.power: list[float] = []
        self._clocks: list[float] = []
        self._events = 0
        self._strangers: set[int] = set()
        self._servers: set[int] = set()

    def start(self) -> None:
        self._energy_start = self._energy()

    def energy_wh(self) -> float | None:
        """Since `start`; the counter is in millijoules."""
        now = self._energy()
        return None if now is None or self._energy_start is None else (now - self._energy_start) / 3.6e6

    def sample(self, own_pids: set[int]) -> None:
        for values, name, read in (
            (self.util, "nvmlDeviceGetUtilizationRates", lambda r: float(r.gpu)),
            (self.memory, "nvmlDeviceGetMemoryInfo", lambda r: r.used / MIB),
            (self.power, "nvmlDeviceGetPowerUsage", lambda r: r / 1000),
        ):
            reading = _ask(name, self._handle)
            if reading is not None:
                values.append(read(reading))
        if (clock := _ask("nvmlDeviceGetClockInfo", self._handle, 1)) is not None:  # 1 = SM
            self._clocks.append(float(clock))
        self._events |= _ask("nvmlDeviceGetCurrentClocksEventReasons", self._handle) or 0
        processes = _ask("nvmlDeviceGetComputeRunningProcesses", self._handle) or []
        pids = {process.pid for process in processes}
        # In a container NVML may tell the host's pids, of which none is ours: then it cannot say who is a stranger.
        if pids & own_pids:
            for pid in pids - own_pids - self._strangers - self._servers:
                (self._servers if _is_of_mps(pid) else self._strangers).add(pid)

    @property
    def cuda_mps(self) -> bool:
        return bool(self._servers)

    def warnings(self) -> list[str]:
        found = [text for bit, text in SLOWDOWNS.items() if self._events & bit]
        if self._strangers:
            found.append(f"{len(self._strangers)} other process(es) on the GPU")
        busy = [clock for clock, util in zip(self._clocks, self.util, strict=False) if util >= 50]
        if len(busy) >= 10 and statistics.fmean(busy) < CLOCK_DROP * max(busy):
            found.append(f"clock drop: mean {statistics.fmean(busy):.0f} of {max(busy):.0f} MHz")
        return found

    def _energy(self) -> float | None:
        energy: float | None = _ask("nvmlDeviceGetTotalEnergyConsumption", self._handle)
        return energy


def reading_now(hardware: Hardware) -> GpuReadings | None:
    """One sample of the GPUs, without energy; None without a GPU."""
    gpus = [_GpuSamples(str(device.index)) for device in hardware.devices]
    for gpu in gpus:
        gpu.sample(set())
    return _readings(gpus, None) if gpus else None


def _readings(gpus: Sequence[_GpuSamples], energy_wh: float | None) -> GpuReadings:
    return GpuReadings(
        util_mean=_mean(value for gpu in gpus for value in gpu.util),
        memory_peak_mib=max((value for gpu in gpus for value in gpu.memory), default=None),
        power_mean_watts=_sum(_mean(gpu.power) for gpu in gpus),
        energy_wh=energy_wh,
        warnings=tuple(dict.fromkeys(text for gpu in gpus for text in gpu.warnings())),
        cuda_mps=any(gpu.cuda_mps for gpu in gpus),
    )


def _is_of_mps(pid: int) -> bool:
    import psutil

    try:
        return str(psutil.Process(pid).name()).startswith(MPS)
    except psutil.Error:  # it has ended, or is of another container
        return False


def _ask(name: str, *arguments: Any) -> Any:
    """One NVML query; None where this GPU or driver does not answer it."""
    import pynvml

    try:
        return getattr(pynvml, name)(*arguments)
    except (pynvml.NVMLError, AttributeError):
        return None


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.fmean(known) if known else None


def _sum(values: Iterable[float | None]) -> float | None:
    """None where one of them is not known: a part is no sum."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if len(known) == len(found) else None
