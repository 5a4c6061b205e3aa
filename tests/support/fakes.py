"""Hand-written stand-ins for what a test cannot afford: an engine that needs no model."""

from __future__ import annotations

import collections
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from whisperbench.engines.hardware import Hardware
from whisperbench.engines.settings import EngineSettings
from whisperbench.engines.vllm import EngineFacts, Output, Request

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "again")
DELAY_VARIABLE = "FAKE_ENGINE_DELAY_SECONDS"
LEDGER_VARIABLE = "FAKE_ENGINE_LEDGER"
"""A file that gets the key of every request as it is handed out, for tests that kill the process."""

NO_GPU = Hardware("Fake CPU", 0)


class FakeEngine:
    """An `Engine` whose text depends on the audio alone, one request a step, `delay` seconds each."""

    def __init__(
        self, _settings: EngineSettings | None = None, _hardware: Hardware = NO_GPU, log: Path | None = None
    ) -> None:
        self.facts = EngineFacts("float32", "float32", "0.0", "0.0", 0.1)
        self.delay = float(os.environ.get(DELAY_VARIABLE, "0"))
        self.closed = False
        ledger = os.environ.get(LEDGER_VARIABLE)
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if ledger else None
        self._waiting: collections.deque[Request] = collections.deque()
        if log is not None:
            log.write_text("fake engine: ready\n", encoding="utf-8")

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    def prepare(self, request: Request) -> Any:
        return len(request.audio)

    def submit(self, request: Request, prepared: Any) -> None:
        assert prepared == len(request.audio)
        self._waiting.append(request)

    def step(self) -> Sequence[Output]:
        time.sleep(self.delay)
        output = text_of(self._waiting.popleft())
        if self._ledger is not None:
            os.write(self._ledger, f"{output.key}\n".encode())
        return [output]

    def generate(self, requests: Sequence[Request]) -> Sequence[Output]:
        return [text_of(request) for request in requests]

    def pids(self) -> set[int]:
        return {os.getpid()}

    def close(self) -> None:
        self.closed = True


def text_of(request: Request) -> Output:
    """One word per second of audio (or as many as are asked for), chosen by the samples."""
    count = request.exact_tokens or 1 + len(request.audio) // 16_000
    start = int(np.abs(request.audio).sum() * 1000) % len(WORDS)
    words = [WORDS[(start + i) % len(WORDS)] for i in range(count)]
    return Output(request.key, " ".join(words), count)
