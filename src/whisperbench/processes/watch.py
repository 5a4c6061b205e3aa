"""Watch processes from a thread, and find the processes whose end also ends this process."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Collection
from pathlib import PurePath

import psutil

from whisperbench.processes.guardian import is_gone

POLL_SECONDS = 0.5
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
RUN_ID = "MLFLOW_RUN_ID"
"""Environment variable set by `mlflow run` and by a sweep: the run that the started process logs to."""
LAUNCHER = "WHISPERBENCH_LAUNCHER_PID"
"""Environment variable set by a sweep: the started process stops when the process with this id has ended."""


def launcher() -> int | None:
    """Process id of the sweep that started this process, or of the `mlflow run` among its ancestors; None without."""
    if (pid := os.environ.get(LAUNCHER, "")).isdecimal():
        return int(pid)
    for parent in psutil.Process().parents() if RUN_ID in os.environ else ():
        with contextlib.suppress(psutil.Error):
            words = parent.cmdline()
            if "run" in words and any(PurePath(word).name.startswith("mlflow") for word in words[:3]):
                return int(parent.pid)
    return None


def end_with_parent() -> None:
    """Let the kernel kill this process when the parent that started it by multiprocessing ends, however it ends.

    The kernel follows the thread that started this process (prctl(2), PR_SET_PDEATHSIG).
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent.pid:  # it has ended before
        os.kill(os.getpid(), signal.SIGKILL)


def watch_processes(pids: Collection[int], when_gone: Callable[[], None]) -> Callable[[], None]:
    """Call `when_gone` once, in a thread, as soon as a process of `pids` has ended or does not exist.

    Returns a function that ends the watch; it must be called before the processes end as intended.
    """
    stopped, processes = threading.Event(), []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))  # compares the start time, because ids are reused

    def watch() -> None:
        while len(processes) == len(pids) and not any(map(is_gone, processes)):
            if stopped.wait(POLL_SECONDS):
                return
        when_gone()

    thread = threading.Thread(target=watch, name="process-watch", daemon=True)
    thread.start()

    def stop() -> None:
        stopped.set()
        thread.join()

    return stop
