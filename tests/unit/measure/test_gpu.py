"""GPU readings of a timed region; none without a GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.fakes import NO_GPU, one_gpu
from whisperbench.engines.hardware import MIB, Device, Hardware
from whisperbench.measure import gpu
from whisperbench.measure.gpu import GpuReadings

H100 = one_gpu("NVIDIA H100 80GB HBM3")


def test_without_a_gpu_nothing_is_read() -> None:
    """Absent, not zero."""
    assert gpu.start_sampling(NO_GPU, set)() is None


class Nvml:
    """NVML of one GPU: 3.6 J more for each energy query, and another process from the second sample on."""

    def __init__(self, events: int = 0, other_pid: int = 77) -> None:
        self.samples, self.energy, self.events, self.other_pid = 0, 1_000_000.0, events, other_pid

    def __call__(self, name: str, *_: Any) -> Any:
        if name == "nvmlDeviceGetTotalEnergyConsumption":
            self.energy += 3_600
            return self.energy
        if name == "nvmlDeviceGetUtilizationRates":
            self.samples += 1
            return SimpleNamespace(gpu=90)
        return {
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=(1_000 + self.samples) * MIB),
            "nvmlDeviceGetPowerUsage": 650_000,
            "nvmlDeviceGetClockInfo": 1_980 if self.samples < 3 else 1_200,
            "nvmlDeviceGetCurrentClocksEventReasons": self.events,
            "nvmlDeviceGetComputeRunningProcesses": [
                SimpleNamespace(pid=pid) for pid in ([1] if self.samples < 2 else [1, self.other_pid])
            ],
        }[name]


def readings_of(nvml: Nvml, monkeypatch: pytest.MonkeyPatch, samples: int, own_pid: int = 1) -> GpuReadings:
    """Readings of a monitor that has taken at least this number of samples."""
    monkeypatch.setattr(gpu, "open_device", lambda _name: object())
    monkeypatch.setattr(gpu, "nvml", nvml)
    monkeypatch.setattr(gpu, "SAMPLE_SECONDS", 0.001)
    stop = gpu.start_sampling(H100, lambda: {own_pid})
    while nvml.samples < samples:
        pass
    readings = stop()
    assert readings is not None
    return readings


@pytest.mark.parametrize("events", [0x4, 0x4 | 0x20])
def test_readings_cover_the_region_and_warn(monkeypatch: pytest.MonkeyPatch, events: int) -> None:
    """Means, a peak, the energy difference and other processes; thermal slowdown and clock drops are warnings."""
    nvml = Nvml(events)
    found = readings_of(nvml, monkeypatch, samples=30)
    assert (found.util_mean, found.power_mean_watts) == (90, 650)
    assert found.energy_wh == pytest.approx(0.001)
    assert found.memory_peak_mib == 1_000 + nvml.samples
    assert found.disturbance == "1 other process(es) used the GPU"
    assert any(text.startswith("clock drop: mean 1") for text in found.warnings)
    assert ("software thermal slowdown" in found.warnings) == bool(events & 0x20)
    assert not found.cuda_mps


@pytest.mark.parametrize("connected", [True, False])
def test_mps_counts_only_where_cuda_connects_to_it(
    connected: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The server of another pipe directory serves other programs."""
    monkeypatch.setattr(gpu, "_is_mps", lambda _pid: True)
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    if connected:
        (tmp_path / "control").touch()
    assert readings_of(Nvml(), monkeypatch, samples=5).cuda_mps == connected


def test_a_container_that_sees_foreign_pids_only_does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process ids of the host's namespace cannot be compared with those of the container."""
    assert readings_of(Nvml(), monkeypatch, samples=2, own_pid=4_242).disturbance is None


def test_several_gpus_have_one_handle_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Utilisation is the mean, memory the fullest, power and energy the sum of all."""
    devices = {name: Nvml() for name in ("GPU-0", "GPU-1")}
    monkeypatch.setattr(gpu, "open_device", devices.__getitem__)
    monkeypatch.setattr(gpu, "nvml", lambda name, device, *more: device(name, *more))
    hardware = Hardware("CPU", tuple(Device("NVIDIA A10", 1, (8, 6), uuid=f"GPU-{i}") for i in (0, 1)))
    stop = gpu.start_sampling(hardware, set)
    while not all(device.samples for device in devices.values()):
        pass
    found = stop()
    assert found is not None
    assert (found.util_mean, found.power_mean_watts) == (90, 1_300)
    assert found.energy_wh == pytest.approx(0.002)
    assert found.memory_peak_mib == 1_000 + max(device.samples for device in devices.values())


def test_a_sum_over_gpus_without_one_of_them_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The power and energy of the other GPUs would be too low for all of them."""
    monkeypatch.setattr(gpu, "open_device", lambda uuid: uuid)
    monkeypatch.setattr(gpu, "nvml", lambda name, uuid, *_: None if uuid == "GPU-1" else Nvml()(name))
    hardware = Hardware("CPU", tuple(Device("NVIDIA A10", 1, (8, 6), uuid=f"GPU-{i}") for i in (0, 1)))
    found = gpu.start_sampling(hardware, set)()
    assert found is not None
    assert (found.util_mean, found.power_mean_watts, found.energy_wh) == (90, None, None)


def test_a_mig_device_has_no_readings_of_the_whole_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory and processes are its own; utilisation, power, energy and clocks are absent."""
    monkeypatch.setattr(gpu, "open_device", lambda _uuid: object())
    monkeypatch.setattr(gpu, "nvml", Nvml(events=0x20))
    found = gpu.reading_now(Hardware("CPU", (Device("NVIDIA A100 MIG 1g.5gb", 4_864, (8, 0), uuid="MIG-1"),)))
    assert found == GpuReadings(util_mean=None, memory_peak_mib=1_000, power_mean_watts=None, energy_wh=None)
