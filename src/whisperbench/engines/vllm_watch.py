"""An engine process that is killed: vLLM's client (0.26 to 0.32) then waits for its next output for ever."""

from __future__ import annotations

import queue
from collections.abc import Iterable
from typing import Any

from whisperbench.supervise.watch import ProcessWatch


class EngineWatch(ProcessWatch):
    """Puts `EngineDeadError` where vLLM's client waits once one of `processes` (of psutil) is gone."""

    def __init__(self, processes: Iterable[Any], outputs: queue.Queue[Any]) -> None:
        def say_that_it_is_dead() -> None:
            from vllm.v1.engine.exceptions import EngineDeadError

            outputs.put_nowait(EngineDeadError())

        super().__init__((process.pid for process in processes), say_that_it_is_dead)
