"""Commit and state of the source tree, wherever the command was started."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from whisperbench.results.environment import git_commit, git_is_dirty


def test_the_commit_is_that_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of the working directory."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    monkeypatch.chdir(tmp_path)
    assert git_commit() == done.stdout.strip()
    assert git_is_dirty() in (True, False)
