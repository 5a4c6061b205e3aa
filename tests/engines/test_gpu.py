"""Hardware detection, and a monitor that stays silent without a GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from whisperbench.engines import hardware as gpu
from whisperbench.engines.hardware import GpuMonitor, Hardware, detect_hardware

H100 = Hardware("NVIDIA H100 80GB HBM3", 1, memory_mib=81_559, compute_capability=(9, 0))


def test_an_empty_list_of_devices_is_the_cpu() -> None:
    """CUDA_VISIBLE_DEVICES= hides every GPU: then the CPU's name stands in and the count is 0."""
    found = detect_hardware("")
    assert found.gpu_count == 0
    assert found.gpu_name
    assert not found.has_gpu


def test_without_a_gpu_nothing_is_read() -> None:
    """Absent, not zero."""
    with GpuMonitor(Hardware("some CPU", 0), set) as monitor:
        pass
    assert monitor.readings is None


class Nvml:
    """A GPU of 700 W whose energy counter runs at 3.6 J a query, with a stranger on it from the second sample on."""

    def __init__(self, events: int = 0) -> None:
        self.samples, self.energy, self.events = 0, 1_000_000.0, events

    def __call__(self, name: str, *_: Any) -> Any:
        if name == "nvmlDeviceGetTotalEnergyConsumption":
            self.energy += 3_600
            return self.energy
        if name == "nvmlDeviceGetUtilizationRates":
            self.samples += 1
            return SimpleNamespace(gpu=90)
        return {
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=(1_000 + self.samples) * gpu.MIB),
            "nvmlDeviceGetPowerUsage": 650_000,
            "nvmlDeviceGetClockInfo": 1_980 if self.samples < 3 else 1_200,
            "nvmlDeviceGetCurrentClocksEventReasons": self.events,
            "nvmlDeviceGetComputeRunningProcesses": [
                SimpleNamespace(pid=pid) for pid in ([1] if self.samples < 2 else [1, 77])
            ],
        }[name]


@pytest.mark.parametrize("events", [0x4, 0x4 | 0x20])
def test_readings_cover_the_region_and_warn(monkeypatch: pytest.MonkeyPatch, events: int) -> None:
    """Means, a peak and the energy between two counter readings; strangers, thermal slowdown and clock drops warn."""
    nvml = Nvml(events)
    monkeypatch.setattr(gpu, "_open_device", lambda _visible: (object(), 0))
    monkeypatch.setattr(gpu, "_ask", nvml)
    monkeypatch.setattr(gpu, "SAMPLE_SECONDS", 0.001)
    with GpuMonitor(H100, lambda: {1}) as monitor:
        while nvml.samples < 30:
            pass
    found = monitor.readings
    assert found is not None
    assert (found.util_mean, found.power_mean_watts) == (90, 650)
    assert found.energy_wh == pytest.approx(0.001)
    assert found.memory_peak_mib == 1_000 + nvml.samples
    assert "1 other process(es) on the GPU" in found.warnings
    assert any(text.startswith("clock drop: mean 1") for text in found.warnings)
    assert ("software thermal slowdown" in found.warnings) == bool(events & 0x20)


def test_a_container_that_sees_foreign_pids_only_does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where NVML tells the host's process ids, none is ours, and nobody can be called a stranger."""
    monkeypatch.setattr(gpu, "_open_device", lambda _visible: (object(), 0))
    monkeypatch.setattr(gpu, "_ask", Nvml())
    with GpuMonitor(H100, lambda: {4_242}) as monitor:
        pass
    assert monitor.readings is not None
    assert monitor.readings.warnings == ()
