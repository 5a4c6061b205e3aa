"""The process of vLLM's engine that is begun before vLLM asks for it; vLLM's place for it is a module of two lines."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from whisperbench.engines import vllm_prestart
from whisperbench.engines.vllm_prestart import PRELOADED, Prestarted

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`vllm.v1.engine.utils` with what this is about, and nothing for a process to import."""
    utils = ModuleType(vllm_prestart.MAKER)
    utils.get_mp_context = lambda: SPAWN  # type: ignore[attr-defined]
    for name in ("vllm", "vllm.v1", "vllm.v1.engine"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, vllm_prestart.MAKER, utils)
    monkeypatch.setattr(vllm_prestart, "IMPORTED", ())
    return utils


def work(file: Path, **_: Any) -> None:
    """What vLLM has its process do."""
    process = multiprocessing.current_process()
    file.write_text(f"{os.getpid()} {process.name} {os.environ.get('ASKED_FOR')} {os.environ.get('GONE')}", "utf-8")


def started(vllm: ModuleType, file: Path, **kwargs: Any) -> tuple[int, str]:
    """The id of the process that vLLM has started and waited for, and what it has written."""
    process = vllm.get_mp_context().Process(target=work, name="EngineCore", kwargs={"file": file, **kwargs})
    process.start()
    process.join(30)
    assert process.exitcode == 0
    return process.pid, file.read_text("utf-8")


def waiting() -> list[BaseProcess]:
    """Those that are there; one that psutil has seen off (of another test's engine) Python still takes for alive."""
    children = [each for each in multiprocessing.active_children() if each.name == vllm_prestart.PRESTARTED]
    return [each for each in children if psutil.pid_exists(each.pid or 0)]


def test_it_does_vllms_work_under_vllms_name_and_in_the_environment_of_then(
    vllm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GONE", "1")
    with Prestarted("cpu") as process:
        begun = waiting()[0].pid
        monkeypatch.delenv("GONE")
        monkeypatch.setenv("ASKED_FOR", "later")
        with process.used_by_vllm():
            assert started(vllm, tmp_path / "a") == (begun, f"{begun} EngineCore later None")
            second, _ = started(vllm, tmp_path / "b")  # there was one
            assert second != begun
        assert vllm.get_mp_context() is SPAWN
    assert waiting() == []


def test_an_idle_one_ends_with_the_block() -> None:
    with Prestarted("cpu"):
        assert len(waiting()) == 1
    assert waiting() == []


@pytest.mark.parametrize("why", ["killed", "its libraries are others", "arguments that go to a process with its start"])
def test_vllms_own_process_does_it_where_this_one_cannot(
    vllm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    with Prestarted("cpu") as process:
        [child] = waiting()
        if why == "killed":
            child.kill()
            child.join()
        if why == "its libraries are others":
            monkeypatch.setenv(PRELOADED, "")
        queue = SPAWN.Queue() if why.startswith("arguments") else None
        with process.used_by_vllm():
            pid, said = started(vllm, tmp_path / "a", tensor_queue=queue)
        assert pid != child.pid
        assert said.startswith(f"{pid} EngineCore")
        assert not child.is_alive()


@pytest.mark.parametrize("gone", ["what it asks", "the module"])
def test_a_version_of_vllm_without_a_place_for_it_starts_its_own(
    vllm: ModuleType, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    if gone == "the module":
        monkeypatch.delitem(sys.modules, vllm_prestart.MAKER)
    else:
        del vllm.get_mp_context
    with Prestarted("cpu") as process, process.used_by_vllm():
        assert gone == "the module" or not hasattr(vllm, "get_mp_context")
        assert len(waiting()) == 1
    assert waiting() == []
