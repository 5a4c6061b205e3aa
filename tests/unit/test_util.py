"""The command that hints name."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest

from whisperbench.util import typed_command


@pytest.mark.parametrize(
    ("on_path", "in_make", "installed", "command"),
    [
        (True, False, True, "whisperbench"),
        (False, False, True, "'my project/bin/whisperbench'"),
        (True, True, True, "'my project/bin/whisperbench'"),
        (False, False, False, None),
    ],
)
def test_the_command_is_named_as_the_user_can_type_it(
    on_path: bool, in_make: bool, installed: bool, command: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is not on the user's PATH, by its path; make adds the environment to its own PATH only."""
    script = tmp_path / "my project/bin/whisperbench"
    script.parent.mkdir(parents=True)
    if installed:
        script.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(script.parent))
    monkeypatch.setattr(shutil, "which", lambda _name: "/usr/bin/whisperbench" if on_path else None)
    monkeypatch.delenv("MAKELEVEL", raising=False)
    if in_make:
        monkeypatch.setenv("MAKELEVEL", "1")
    assert typed_command() == command
