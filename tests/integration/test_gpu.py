"""What GPUs did while the clock ran; a monitor stays silent without one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.measure.test_gpu import Nvml, readings_of


def test_the_server_of_cuda_mps_is_no_stranger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NVML lists it beside the engines that it serves: a process of that name, here one that sleeps."""
    server = tmp_path / "nvidia-cuda-mps-server"
    shutil.copy("/bin/sleep", server)
    with subprocess.Popen([server, "60"]) as process:
        found = readings_of(Nvml(other_pid=process.pid), monkeypatch, samples=5)
        process.kill()
    assert found.cuda_mps
    assert found.disturbance is None
