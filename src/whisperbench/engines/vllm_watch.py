"""An engine process that is killed: vLLM's client (0.26 to 0.32) then waits for its next output for ever."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Any

from whisperbench.supervise.owner import is_gone

LOOK_SECONDS = 0.5
GRACE_SECONDS = 2.0
"""An engine that fails by itself says so; this long its own word is waited for."""


class Watchdog:
    """Puts `EngineDeadError` where vLLM's client waits once one of `processes` (of psutil) is gone."""

    def __init__(self, processes: Sequence[Any], outputs: queue.Queue[Any]) -> None:
        self._processes, self._outputs = processes, outputs
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="engine-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """To be called before the engine is closed, whose processes then end as they should."""
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        while not self._stopped.wait(LOOK_SECONDS):
            if any(map(is_gone, self._processes)):
                if not self._stopped.wait(GRACE_SECONDS):
                    self._outputs.put_nowait(EngineDeadError())
                return
