"""Which process has started this one and has to outlive it: an `mlflow run`, or a sweep."""

from __future__ import annotations

import contextlib
import os
from pathlib import PurePath

import psutil

RUN_ID = "MLFLOW_RUN_ID"
"""Set by `mlflow run`, and by a sweep, for the process that is to work on that run."""
LAUNCHER = "WHISPERBENCH_LAUNCHER_PID"
"""Set by a sweep for the processes that it starts: when the one of that number is gone, they stop."""


def launcher() -> int | None:
    """The process id of the sweep that started this process, or of the `mlflow run` a shell or two above it."""
    if (told := os.environ.get(LAUNCHER, "")).isdecimal():
        return int(told)
    for parent in psutil.Process().parents() if RUN_ID in os.environ else ():
        with contextlib.suppress(psutil.Error):
            words = parent.cmdline()
            if "run" in words and any(PurePath(word).name.startswith("mlflow") for word in words[:3]):
                return int(parent.pid)
    return None
