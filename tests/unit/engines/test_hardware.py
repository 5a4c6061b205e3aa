"""Detection of the devices that an engine will use, or of the CPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.engines import hardware
from whisperbench.engines.hardware import NOT_REPORTED, Hardware, detect_hardware, free_cores, select_gpus, usable_cores
from whisperbench.errors import ConfigError

UUIDS = ("GPU-1f57f0aa", "GPU-1f57ffbb", "GPU-30000000", "GPU-40000000")


class NvmlError(Exception):
    """NVML's error for a function that a device does not support."""


def nvml(unsupported: str = "") -> SimpleNamespace:
    """NVML of a host with GPUs 0 to 3, whose handles are their UUIDs; GPU 3 is in MIG mode and has two MIG devices."""

    def mig_device(_gpu: str, index: int) -> str:
        if index not in (0, 2):
            raise NvmlError
        return f"MIG-{index}abc"

    def capability(handle: str) -> tuple[int, int]:
        if handle.startswith("MIG-"):
            raise NvmlError
        return 8, 0

    functions = {
        "nvmlInit": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: "580.1",
        "nvmlDeviceGetCount": lambda: len(UUIDS),
        "nvmlDeviceGetHandleByIndex": UUIDS.__getitem__,
        "nvmlDeviceGetMigMode": lambda gpu: [int(gpu == UUIDS[3])] * 2,
        "nvmlDeviceGetMaxMigDeviceCount": lambda _gpu: 7,
        "nvmlDeviceGetMigDeviceHandleByIndex": mig_device,
        "nvmlDeviceGetName": lambda handle: f"NVIDIA A100{' MIG 1g.5gb' if handle.startswith('MIG-') else ''}",
        "nvmlDeviceGetUUID": lambda handle: handle,
        "nvmlDeviceGetCudaComputeCapability": capability,
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=(5 if handle.startswith("MIG-") else 40) << 30),
        "nvmlDeviceGetEnforcedPowerLimit": lambda _handle: 400_000,
    }
    functions.pop(unsupported, None)
    return SimpleNamespace(NVMLError=NvmlError, **functions)


def test_an_empty_list_of_devices_is_the_cpu() -> None:
    """CUDA_VISIBLE_DEVICES= hides all GPUs; the name is the CPU's, and the number of GPUs is 0."""
    found = detect_hardware("")
    assert found.gpu_count == 0
    assert found.gpu_name
    assert not found.has_gpu
    assert found.environment["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        (None, "GPU-1f57f0aa,GPU-1f57ffbb,GPU-30000000,MIG-0abc,MIG-2abc"),
        ("2, 1", "GPU-30000000,GPU-1f57ffbb"),
        ("GPU-1f57f0", "GPU-1f57f0aa"),
        ("GPU-30000000,0", "GPU-30000000,GPU-1f57f0aa"),
        ("MIG-2", "MIG-2abc"),
        ("GPU-4", "MIG-0abc,MIG-2abc"),
        ("1,GPU-9,2", "GPU-1f57ffbb"),
        ("-1", ""),
        ("²", ""),
    ],
)
def test_visible_devices_are_passed_on_by_uuid(
    visible: str | None, uuids: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in CUDA, the variable has indices or beginnings of UUIDs, and is read up to the first unknown one."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    found = detect_hardware(visible)
    assert found.environment == {"CUDA_VISIBLE_DEVICES": uuids, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert detect_hardware(found.environment["CUDA_VISIBLE_DEVICES"]) == found


@pytest.mark.parametrize(
    ("visible", "message"),
    [
        ("GPU-1f57f", "GPU-1f57f in CUDA_VISIBLE_DEVICES=GPU-1f57f is the beginning of several UUIDs, or names"),
        ("0,0", "0 in CUDA_VISIBLE_DEVICES=0,0 is the beginning of several UUIDs, or names a GPU a second time"),
        ("1,GPU-1f57ff", "GPU-1f57ff in "),
        ("MIG-0,3", "3 in "),
    ],
)
def test_ambiguous_devices_are_refused(visible: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA would find fewer GPUs, or none."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    with pytest.raises(ConfigError, match=f"^{message}"):
        detect_hardware(visible)


def test_a_run_has_devices_of_one_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """MIG devices have their own name, UUID and memory, and no power limit; the compute capability is the GPU's."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    whole = select_gpus(detect_hardware(), BenchmarkConfig(gpus=2))
    assert (whole.gpu_name, whole.memory_mib, whole.gpu_power_limit_watts) == ("NVIDIA A100", 40 << 10, "400")
    mig = select_gpus(detect_hardware(), BenchmarkConfig(gpu_type="MIG", gpus=None))
    assert mig.environment["CUDA_VISIBLE_DEVICES"] == "MIG-0abc,MIG-2abc"
    assert (mig.gpu_name, mig.memory_mib) == ("NVIDIA A100 MIG 1g.5gb", 5 << 10)
    assert (mig.compute_capability, mig.gpu_power_limit_watts) == ((8, 0), None)


@pytest.mark.parametrize(
    ("unsupported", "found"),
    [
        ("nvmlDeviceGetMemoryInfo", lambda hardware: hardware.memory_mib),
        ("nvmlDeviceGetCudaComputeCapability", lambda hardware: hardware.compute_capability),
        ("nvmlDeviceGetName", lambda hardware: None if hardware.gpu_name == NOT_REPORTED else hardware.gpu_name),
        ("nvmlDeviceGetUUID", lambda hardware: None if hardware.devices[0].uuid == "2" else hardware.devices[0].uuid),
        ("nvmlDeviceGetEnforcedPowerLimit", lambda hardware: hardware.gpu_power_limit_watts),
        ("nvmlSystemGetDriverVersion", lambda hardware: hardware.cuda_driver),
    ],
)
def test_what_nvml_does_not_report_is_absent(
    unsupported: str, found: Callable[[Hardware], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on hosts with unified memory; the GPU is used all the same, also without MIG."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml("nvmlDeviceGetMigMode"))
    assert found(detect_hardware("2")) is not None
    monkeypatch.setitem(sys.modules, "pynvml", nvml(unsupported))
    hardware = detect_hardware("2")
    assert hardware.has_gpu
    assert found(hardware) is None


def test_one_core_is_left_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of reader threads is at least 1 and at most 8."""
    for cores, readers in ((0.5, 1), (1, 1), (2, 1), (4.5, 3), (64, 8)):
        monkeypatch.setattr(hardware, "usable_cores", lambda n=cores: n)
        assert free_cores() == readers


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/", {}, 8),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "400000 100000"}, 4),
        ("0::/a", {"a/cpu.max": "9900000 100000"}, 8),
        ("1:cpu,cpuacct:/a\n0::/", {"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"}, 2),
        ("1:cpu:/hidden", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
    ],
)
def test_cores_by_affinity_and_quota(
    groups: str, files: dict[str, str], cores: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lowest limit counts, of cgroup v1 or v2 and of every ancestor."""
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    (tmp_path / "own").write_text(groups)
    monkeypatch.setattr(hardware, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(hardware, "CGROUPS", tmp_path / "root")
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))
    assert usable_cores() == cores
