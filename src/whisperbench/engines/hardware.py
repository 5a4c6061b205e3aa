"""What the hardware is, and what it did while the clock ran: NVML readings, or None without a GPU."""

from __future__ import annotations

import dataclasses
import statistics
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SAMPLE_SECONDS = 0.2
MIB = 1 << 20
CLOCK_DROP = 0.85
"""A mean SM clock below this share of the highest one seen in the region counts as a drop."""

SLOWDOWNS = {
    0x0000000000000008: "hardware slowdown",
    0x0000000000000020: "software thermal slowdown",
    0x0000000000000040: "hardware thermal slowdown",
    0x0000000000000080: "hardware power brake",
}
"""NVML's clock event reasons that say the GPU was held back.  The power cap (0x4) is not among
them: a GPU at full load is expected to run at its cap."""


@dataclasses.dataclass(frozen=True, slots=True)
class Hardware:
    """The device of a run: one GPU, or the CPU when there is none (`gpu_count` 0)."""

    gpu_name: str
    gpu_count: int
    memory_mib: int | None = None
    compute_capability: tuple[int, int] | None = None
    cuda_driver: str | None = None
    cpu_has_bfloat16: bool = False
    index: int = 0

    @property
    def has_gpu(self) -> bool:
        return self.gpu_count > 0


@dataclasses.dataclass(frozen=True, slots=True)
class GpuReadings:
    """Means, peaks and energy over one timed region; None where NVML does not tell."""

    util_mean: float | None
    memory_peak_mib: float | None
    power_mean_watts: float | None
    energy_wh: float | None
    warnings: tuple[str, ...] = ()


def detect_hardware(visible_devices: str | None = None) -> Hardware:
    """The GPU that the engine will use, or the CPU.

    `visible_devices` is the value of CUDA_VISIBLE_DEVICES: the engine uses the first one listed.
    """
    handle, index = _open_device(visible_devices)
    if handle is None:
        name, flags = _cpu()
        return Hardware(gpu_name=name, gpu_count=0, cpu_has_bfloat16=bool({"avx512_bf16", "amx_bf16"} & flags))
    import pynvml

    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Hardware(
        gpu_name=_text(pynvml.nvmlDeviceGetName(handle)),
        gpu_count=1,
        memory_mib=pynvml.nvmlDeviceGetMemoryInfo(handle).total // MIB,
        compute_capability=(major, minor),
        cuda_driver=_text(pynvml.nvmlSystemGetDriverVersion()),
        index=index,
    )


class GpuMonitor:
    """Samples the GPU in a thread while a `with` block runs; `readings` afterwards, None without a GPU.

    Other processes that hold GPU memory inside the region, slowdowns and clock drops become warnings:
    a measurement taken beside somebody else's job is not one to rank.
    """

    def __init__(self, hardware: Hardware, own_pids: Callable[[], set[int]]) -> None:
        self.readings: GpuReadings | None = None
        self._hardware, self._own_pids = hardware, own_pids
        self._handle: Any = None
        self._stop = threading.Event()
        self._util: list[float] = []
        self._memory: list[float] = []
        self._power: list[float] = []
        self._clocks: list[float] = []
        self._events = 0
        self._strangers: set[int] = set()

    def __enter__(self) -> Self:
        if self._hardware.has_gpu:
            self._handle, _ = _open_device(str(self._hardware.index))
        if self._handle is not None:
            self._energy_start = _ask("nvmlDeviceGetTotalEnergyConsumption", self._handle)
            self._thread = threading.Thread(target=self._sample_until_stopped, name="gpu-monitor", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is None:
            return
        energy = _ask("nvmlDeviceGetTotalEnergyConsumption", self._handle)
        self._stop.set()
        self._thread.join()
        self.readings = GpuReadings(
            util_mean=_mean(self._util),
            memory_peak_mib=max(self._memory, default=None),
            power_mean_watts=_mean(self._power),
            energy_wh=None if energy is None or self._energy_start is None else (energy - self._energy_start) / 3.6e6,
            warnings=tuple(self._warnings()),
        )

    def _sample_until_stopped(self) -> None:
        while True:
            self._sample()
            if self._stop.wait(SAMPLE_SECONDS):
                return

    def _sample(self) -> None:
        for values, name, read in (
            (self._util, "nvmlDeviceGetUtilizationRates", lambda r: float(r.gpu)),
            (self._memory, "nvmlDeviceGetMemoryInfo", lambda r: r.used / MIB),
            (self._power, "nvmlDeviceGetPowerUsage", lambda r: r / 1000),
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
        if pids & (own := self._own_pids()):
            self._strangers |= pids - own

    def _warnings(self) -> list[str]:
        found = [text for bit, text in SLOWDOWNS.items() if self._events & bit]
        if self._strangers:
            found.append(f"{len(self._strangers)} other process(es) on the GPU")
        busy = [clock for clock, util in zip(self._clocks, self._util, strict=False) if util >= 50]
        if len(busy) >= 10 and statistics.fmean(busy) < CLOCK_DROP * max(busy):
            found.append(f"clock drop: mean {statistics.fmean(busy):.0f} of {max(busy):.0f} MHz")
        return found


def _open_device(visible_devices: str | None) -> tuple[Any, int]:
    """NVML's handle and index of the first visible GPU; (None, 0) where there is no driver or no GPU."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:
        return None, 0
    first = (visible_devices or "0").split(",")[0].strip()
    if visible_devices == "" or first == "-1":
        return None, 0
    try:
        if first.isdigit():
            return pynvml.nvmlDeviceGetHandleByIndex(int(first)), int(first)
        handle = pynvml.nvmlDeviceGetHandleByUUID(first)
        return handle, pynvml.nvmlDeviceGetIndex(handle)
    except pynvml.NVMLError:
        return None, 0


def _ask(name: str, *arguments: Any) -> Any:
    """One NVML query; None where this GPU or driver does not answer it."""
    import pynvml

    try:
        return getattr(pynvml, name)(*arguments)
    except (pynvml.NVMLError, AttributeError):
        return None


def _cpu() -> tuple[str, set[str]]:
    """The CPU's model name and feature flags, from the kernel."""
    import platform

    info = Path("/proc/cpuinfo")
    fields = [line.partition(":") for line in info.read_text().splitlines()] if info.exists() else []
    facts = {key.strip(): value.strip() for key, _, value in reversed(fields)}
    return facts.get("model name") or platform.processor() or platform.machine(), set(facts.get("flags", "").split())


def _mean(values: list[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
