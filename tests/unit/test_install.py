"""The first command on a machine where it cannot work: one sentence with the way out, and nothing is made."""

from __future__ import annotations

import builtins
import importlib.util
import platform
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "requirements" / "install.py"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module that would make its environment in an empty directory."""
    spec = importlib.util.spec_from_file_location("install", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, path in (("VENV", tmp_path / ".venv"), ("PYTHON", tmp_path / ".venv/bin/python")):
        monkeypatch.setattr(module, name, path)
    return module


def refusal(install: Any) -> str:
    with pytest.raises(SystemExit) as ended:
        install.main("cpu")
    assert not install.VENV.exists()
    return str(ended.value)


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 14, 0)])
def test_another_python(version: tuple[int, ...], install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which one it is, which are needed, and how to name another one."""
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(install, "works", lambda name: name == "python3.12")
    said = refusal(install)
    assert said.startswith("error: Python 3.11 to 3.13 is needed")
    assert f"is Python 3.{version[1]}." in said
    assert said.endswith("Found here: make demo PYTHON=python3.12")
    monkeypatch.setattr(install, "works", lambda _: False)
    assert refusal(install).endswith("Install one, then: make demo PYTHON=python3.12")


def test_another_processor(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only x86-64 is supported."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "needs Linux on x86-64, and this is linux on aarch64" in refusal(install)


def test_no_virtual_environments(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's python3 without python3-venv: the package to install is named."""
    really = builtins.__import__

    def without_ensurepip(name: str, *more: Any) -> Any:
        if name == "ensurepip":
            raise ImportError(name)
        return really(name, *more)

    monkeypatch.setattr(builtins, "__import__", without_ensurepip)
    assert f"apt-get install python3.{sys.version_info[1]}-venv" in refusal(install)


def test_too_little_room(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before gigabytes are on their way."""
    monkeypatch.setattr(install.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 30}))
    assert "4 GiB of disk are needed, and 1.0 GiB are free" in refusal(install)


def test_the_cpu_build_of_torch_is_optional(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the ordinary build is installed; the project comes last, editable and without its dependencies."""
    calls: list[list[str]] = []

    def call(command: list[str]) -> int:
        calls.append(command[4:])
        return int(command[-1].endswith("+cpu"))

    monkeypatch.setattr(install, "refuse_what_cannot_work", lambda: None)
    monkeypatch.setattr(install, "need_disk", lambda _: None)
    monkeypatch.setattr(install.subprocess, "check_call", lambda _: None)
    monkeypatch.setattr(install.subprocess, "call", call)
    install.main("cpu")
    assert all(words[0] == "--no-deps" for words in calls)
    assert calls[0][-1].endswith("+cpu")
    assert calls[1][-1] == calls[0][-1].removesuffix("+cpu")
    assert calls[2][-1].endswith("cpu.txt")
    assert calls[3][1:] == ["--no-build-isolation", "--editable", str(SCRIPT.parents[1])]


def test_a_failure_of_pip_ends_the_installation(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pip's status; pip has printed the reason."""
    monkeypatch.setattr(install, "refuse_what_cannot_work", lambda: None)
    monkeypatch.setattr(install.subprocess, "check_call", lambda _: None)
    monkeypatch.setattr(install.subprocess, "call", lambda _: 2)
    with pytest.raises(SystemExit, match="pip failed with status 2"):
        install.main("dev")
