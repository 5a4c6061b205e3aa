"""A thread that waits for the end of processes, and the launcher whose end ends this process."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import PurePath

import psutil

from whisperbench.processes.guardian import is_gone

POLL_SECONDS = 0.5
RUN_ID = "MLFLOW_RUN_ID"
"""Set by `mlflow run` and by a sweep: the run that the started process fills."""
LAUNCHER = "WHISPERBENCH_LAUNCHER_PID"
"""Set by a sweep: the started process ends when the process with this id is gone."""


def launcher() -> int | None:
    """The process id of the sweep that started this process, or of the `mlflow run` a shell or two above it."""
    if (pid := os.environ.get(LAUNCHER, "")).isdecimal():
        return int(pid)
    for parent in psutil.Process().parents() if RUN_ID in os.environ else ():
        with contextlib.suppress(psutil.Error):
            words = parent.cmdline()
            if "run" in words and any(PurePath(word).name.startswith("mlflow") for word in words[:3]):
                return int(parent.pid)
    return None


class ProcessWatch:
    """Calls `when_gone` once, in its own thread, when a process of `pids` has ended or does not exist."""

    def __init__(self, pids: Iterable[int], when_gone: Callable[[], None]) -> None:
        self._pids, self._when_gone = set(pids), when_gone
        self._processes = []
        for pid in self._pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._processes.append(psutil.Process(pid))  # compares the start time, because ids are reused
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="process-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the watch; to be called before an expected end of the processes."""
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while len(self._processes) == len(self._pids) and not any(map(is_gone, self._processes)):
            if self._stopped.wait(POLL_SECONDS):
                return
        self._when_gone()
