"""Hand-written stand-ins for what a test cannot afford: an engine that needs no model."""

from __future__ import annotations

import collections
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from whisperbench.engine import EngineFacts, EngineSettings, Output, Request
from whisperbench.gpu import Hardware

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "again")
DELAY_VARIABLE = "FAKE_ENGINE_DELAY_SECONDS"
NO_GPU = Hardware("Fake CPU", 0)


class FakeEngine:
    """An `Engine` whose text depends on the audio alone, one request a step, `delay` seconds each."""

    def __init__(
        self, settings: EngineSettings | None = None, hardware: Hardware = NO_GPU, log: Path | None = None
    ) -> None:
        self.facts = EngineFacts("float32", "float32", "0.0", "0.0", 0.1)
        self.delay = float(os.environ.get(DELAY_VARIABLE, "0"))
        self.closed = False
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
        return [text_of(self._waiting.popleft())]

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
