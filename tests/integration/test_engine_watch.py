"""The client of an engine that was killed does not wait for it for ever; vLLM itself is made up."""

from __future__ import annotations

import queue
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from whisperbench.engines.vllm.engine import EngineWatch


class EngineDeadError(Exception):
    """As vLLM has it."""


def test_a_client_is_told_that_its_engine_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the queue where it waits, with what vLLM itself puts there."""
    exceptions = SimpleNamespace(EngineDeadError=EngineDeadError)
    monkeypatch.setitem(sys.modules, "vllm.v1.engine.exceptions", exceptions)  # type: ignore[arg-type]
    outputs: queue.Queue[Any] = queue.Queue()
    with subprocess.Popen(["sleep", "60"]) as engine:
        watch = EngineWatch([psutil.Process(engine.pid)], outputs)
        engine.kill()
        assert isinstance(outputs.get(timeout=5), EngineDeadError)
        watch.stop()
