"""What the hardware is: the GPUs that an engine will use, by NVML, or the CPU where there is none."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

MIB = 1 << 20
MAX_READERS = 8
"""More threads than this only wait for each other: the engine's client needs the interpreter too."""


@dataclasses.dataclass(frozen=True, slots=True)
class Device:
    """One GPU; `index` is NVML's, which counts what CUDA_VISIBLE_DEVICES hides too."""

    name: str
    memory_mib: int
    compute_capability: tuple[int, int]
    uuid: str = ""
    index: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Hardware:
    """The GPUs of a run, all of one kind; without one the CPU stands in."""

    cpu_name: str
    devices: tuple[Device, ...] = ()
    cuda_driver: str | None = None
    cpu_has_bfloat16: bool = False

    @property
    def has_gpu(self) -> bool:
        return bool(self.devices)

    @property
    def gpu_name(self) -> str:
        """NVML's name of the GPUs, or the CPU's model name."""
        return self.devices[0].name if self.devices else self.cpu_name

    @property
    def gpu_count(self) -> int:
        return len(self.devices)

    @property
    def memory_mib(self) -> int | None:
        """Memory of the smallest GPU; None without one."""
        return min((device.memory_mib for device in self.devices), default=None)

    @property
    def compute_capability(self) -> tuple[int, int] | None:
        return min((device.compute_capability for device in self.devices), default=None)


def detect_hardware(visible_devices: str | None = None, gpus: int = 1) -> Hardware:
    """The first `gpus` visible GPUs (0: all of them), or the CPU.

    `visible_devices` is the value of CUDA_VISIBLE_DEVICES: indices or UUIDs, in the engine's order; None: every GPU.
    """
    cpu_name, flags = _cpu()
    has_bfloat16 = bool({"avx512_bf16", "amx_bf16"} & flags)
    handles = visible_handles(visible_devices)[: gpus or None]
    if not handles:
        return Hardware(cpu_name, cpu_has_bfloat16=has_bfloat16)
    import pynvml

    driver = _text(pynvml.nvmlSystemGetDriverVersion())
    return Hardware(cpu_name, tuple(map(_device, handles)), driver, has_bfloat16)


def visible_handles(visible_devices: str | None) -> list[Any]:
    """NVML's handles of the visible GPUs in order; none where there is no driver, or at the first that does not exist
    (which is where CUDA stops, too)."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # whatever a broken driver makes of it: there is no GPU to be used
        return []
    handles: list[Any] = []
    with contextlib.suppress(pynvml.NVMLError):
        names = visible_devices.split(",") if visible_devices is not None else range(pynvml.nvmlDeviceGetCount())
        handles.extend(open_device(str(name).strip()) for name in names)  # as far as they exist
    return handles


def open_device(name: str) -> Any:
    """NVML's handle of a GPU by its index or UUID."""
    import pynvml

    return pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)


def free_cores() -> int:
    """Cores that this process may use, less one for the engine's own loop; at least 1, at most MAX_READERS."""
    return max(1, min(MAX_READERS, len(os.sched_getaffinity(0)) - 1))


def _device(handle: Any) -> Device:
    import pynvml

    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Device(
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        memory_mib=pynvml.nvmlDeviceGetMemoryInfo(handle).total // MIB,
        compute_capability=(major, minor),
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        index=pynvml.nvmlDeviceGetIndex(handle),
    )


def _cpu() -> tuple[str, set[str]]:
    """The CPU's model name and feature flags, from the kernel."""
    import platform

    info = Path("/proc/cpuinfo")
    fields = [line.partition(":") for line in info.read_text().splitlines()] if info.exists() else []
    facts = {key.strip(): value.strip() for key, _, value in reversed(fields)}
    return facts.get("model name") or platform.processor() or platform.machine(), set(facts.get("flags", "").split())


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
