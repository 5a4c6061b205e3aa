"""The first command on a machine where it cannot work: one sentence with the way out, and nothing is made."""

from __future__ import annotations

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
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "PYTHON", tmp_path / ".venv/bin/python")
    return module


def refusal(install: Any) -> str:
    with pytest.raises(SystemExit) as ended:
        install.main("cpu")
    assert not install.VENV.exists()
    return str(ended.value)


def test_another_python(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names its version, those that are supported, and how to use another one."""
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    monkeypatch.setattr(install, "works", lambda name: name == "python3.12")
    needed = f"error: Python 3.11 to 3.13 is needed, and {sys.executable} is Python 3.14. "
    assert refusal(install) == f"{needed}Found here: make demo PYTHON=python3.12"
    monkeypatch.setattr(install, "works", lambda _name: False)
    assert refusal(install) == f"{needed}Install one, then: make demo PYTHON=python3.12"


def test_another_processor(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only x86-64 is supported."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "needs Linux on x86-64, and this is linux on aarch64" in refusal(install)


def test_no_virtual_environments(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's python3 without python3-venv: the package to install is named."""
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    assert f"apt-get install python3.{sys.version_info[1]}-venv" in refusal(install)


def test_too_little_room(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before gigabytes are on their way."""
    monkeypatch.setattr(install.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 30}))
    assert "4 GiB of disk are needed, and 1.0 GiB are free" in refusal(install)


@pytest.fixture
def pip_calls(install: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The arguments of each call of pip, which fails for the CPU build of torch only."""
    calls: list[list[str]] = []

    def call(command: list[str]) -> int:
        calls.append(command[4:])
        return int(command[-1].endswith(("+cpu", "dev.txt")))

    monkeypatch.setattr(install, "refuse_what_cannot_work", lambda: None)
    monkeypatch.setattr(install, "need_disk", lambda _: None)
    monkeypatch.setattr(install.subprocess, "check_call", lambda _: None)
    monkeypatch.setattr(install.subprocess, "call", call)
    return calls


def test_the_cpu_build_of_torch_is_optional(install: Any, pip_calls: list[list[str]]) -> None:
    """Without it the ordinary build is installed; the project comes last, editable and without its dependencies."""
    install.main("cpu")
    torch, ordinary, pins, project = pip_calls
    assert {words[0] for words in pip_calls} == {"--no-deps"}
    assert torch[-1] == f"{ordinary[-1]}+cpu"
    assert pins[-1].endswith("cpu.txt")
    assert project[1:] == ["--no-build-isolation", "--editable", str(SCRIPT.parents[1])]


@pytest.mark.usefixtures("pip_calls")
def test_a_failure_of_pip_ends_the_installation(install: Any) -> None:
    """With pip's status; pip has printed the reason."""
    with pytest.raises(SystemExit, match="pip failed with status 1"):
        install.main("dev")
