"""The list of faults: the README's table is what the suite causes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.faults import BLOCK, README
from tests.support.commands import PROJECT, python_path


@pytest.mark.slow
def test_the_readmes_table_is_current() -> None:
    """`python -m tests.faults --write` has nothing to change, and every pattern of the list names a test."""
    command = [sys.executable, "-m", "tests.faults"]
    listed = subprocess.run(command, cwd=PROJECT, env=python_path(), capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stderr
    written = BLOCK.search(README.read_text(encoding="utf-8"))
    assert written is not None
    assert written[0] == listed.stdout
    assert int(listed.stdout.split("|")[-2]) >= 300
