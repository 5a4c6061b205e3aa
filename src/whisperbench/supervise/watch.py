"""Something to be done when one of some processes is gone, which their own end does not bring about."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable

import psutil

from whisperbench.supervise.orphans import is_gone

LOOK_SECONDS = 0.5


class ProcessWatch:
    """Calls `when_gone` in a thread of its own, once, when a process of `pids` is gone; one that never was counts."""

    def __init__(self, pids: Iterable[int], when_gone: Callable[[], None]) -> None:
        self._pids, self._when_gone = set(pids), when_gone
        self._processes = []
        for pid in self._pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._processes.append(psutil.Process(pid))  # which tells a later one under the same id apart
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, name="process-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """To be called before the processes end as they should."""
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        while len(self._processes) == len(self._pids) and not any(map(is_gone, self._processes)):
            if self._stopped.wait(LOOK_SECONDS):
                return
        self._when_gone()
