"""Detection of the GPUs that an engine will use, or of the CPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from whisperbench.engines.hardware import detect_hardware, free_cores


def test_an_empty_list_of_devices_is_the_cpu() -> None:
    """CUDA_VISIBLE_DEVICES= hides all GPUs; the name is the CPU's, and the number of GPUs is 0."""
    found = detect_hardware("")
    assert found.gpu_count == 0
    assert found.gpu_name
    assert not found.has_gpu


class Nvml(SimpleNamespace):
    """NVML of a host with GPUs 0 to 3, whose handles are their indices; GPU 3 has less memory."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 4

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index > 3:
            raise self.NVMLError
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        if not uuid.startswith("GPU-"):
            raise self.NVMLError
        return int(uuid[-1])

    def nvmlDeviceGetName(self, _handle: int) -> str:
        return "NVIDIA A10"

    def nvmlDeviceGetUUID(self, handle: int) -> bytes:
        return f"GPU-{handle}".encode()

    def nvmlDeviceGetIndex(self, handle: int) -> int:
        return handle

    def nvmlDeviceGetCudaComputeCapability(self, _handle: int) -> tuple[int, int]:
        return 8, 6

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=(20 if handle == 3 else 24) << 30)

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"


@pytest.mark.parametrize(
    ("visible", "gpus", "indices"),
    [
        (None, 1, [0]),
        (None, 0, [0, 1, 2, 3]),
        ("2,1", 1, [2]),
        ("2, 1", 0, [2, 1]),
        ("GPU-3", 1, [3]),
        ("1,7,2", 0, [1]),
        ("-1", 1, []),
    ],
)
def test_devices_are_the_visible_ones_in_order(
    visible: str | None, gpus: int, indices: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in CUDA, the variable has indices or UUIDs, and is read up to the first one that does not exist."""
    monkeypatch.setitem(__import__("sys").modules, "pynvml", Nvml())
    found = detect_hardware(visible, gpus)
    assert [device.index for device in found.devices] == indices
    assert found.gpu_count == len(indices)
    if indices:
        assert (found.gpu_name, found.compute_capability, found.cuda_driver) == ("NVIDIA A10", (8, 6), "580.1")
    assert found.memory_mib == (None if not indices else (20 if 3 in indices else 24) << 10)


def test_one_core_is_left_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of reader threads is at least 1 and at most 8."""
    for cores, readers in ((1, 1), (2, 1), (4, 3), (64, 8)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _pid, n=cores: set(range(n)))
        assert free_cores() == readers
