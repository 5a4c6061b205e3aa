"""Files that may have travelled: a wrong value is named, with what it should be."""

from __future__ import annotations

import subprocess
import sys


def test_nothing_is_loaded_before_something_is_read() -> None:
    """The help text of a command needs no pydantic."""
    program = "import sys, whisperbench.results.recording; sys.exit('pydantic' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], check=False, env={"PYTHONPATH": ":".join(sys.path)}).returncode
        == 0
    )
