"""What tests of commands share: where their processes find this project, and a signal to this process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def python_path() -> dict[str, str]:
    """The environment of a process that imports the project and its tests, whatever its working directory."""
    return {**os.environ, "PYTHONPATH": f"{PROJECT / 'src'}:{PROJECT}"}


def interrupt(number: signal.Signals = signal.SIGTERM) -> None:
    """Tell this process; Python runs the handler before the sleep is over."""
    os.kill(os.getpid(), number)
    time.sleep(5)
