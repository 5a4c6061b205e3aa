"""Hand-written stand-ins for what a test cannot afford: an engine that needs no model."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from whisperbench.corpus.audio import SAMPLE_RATE, Samples, load_audio
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Engine, EngineInfo, Transcription
from whisperbench.engines.hardware import Device, Hardware
from whisperbench.engines.settings import EngineSettings

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "again")
DELAY_VARIABLE = "FAKE_ENGINE_DELAY_SECONDS"
LEDGER_VARIABLE = "FAKE_ENGINE_LEDGER"
"""A file that gets the id of every utterance as its transcript is returned, for tests that kill the process."""

NO_GPU = Hardware("Fake CPU")


def one_gpu(name: str, memory_mib: int = 81_559, capability: tuple[int, int] = (9, 0)) -> Hardware:
    device = Device(name, memory_mib, capability, uuid="GPU-1f57f0aa", power_limit_watts=700)
    return Hardware("Fake CPU", (device,), "580.1")


class FakeEngine(Engine):
    """An `Engine` whose transcripts depend on the audio alone, one after the other, `delay` seconds each."""

    info = EngineInfo("float32", "float32", "0.0", "0.0", 0.1)

    def __init__(
        self, _settings: EngineSettings | None = None, _hardware: Hardware = NO_GPU, log: Path | None = None
    ) -> None:
        self.delay = float(os.environ.get(DELAY_VARIABLE, "0"))
        self.closed = False
        ledger = os.environ.get(LEDGER_VARIABLE)
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if ledger else None
        if log is not None:
            log.write_text("fake engine: ready\n", encoding="utf-8")

    def transcribe(self, utterances: Iterable[Utterance]) -> Iterator[Transcription]:
        for utterance in utterances:
            # In a thread as the real ones do: a signal that arrives inside the decoder's callbacks is lost.
            with ThreadPoolExecutor(1) as reader:
                audio = reader.submit(load_audio, utterance.audio).result()
            time.sleep(self.delay)
            words = text_of(audio, utterance.forced_tokens).split()
            if self._ledger is not None:
                os.write(self._ledger, f"{utterance.utt_id}\n".encode())
            yield Transcription(
                utt_id=utterance.utt_id,
                hypothesis=" ".join(words),
                tokens=len(words),
                seconds=len(audio) / SAMPLE_RATE,
                windows=1,
                latency_seconds=self.delay,
            )

    def pids(self) -> set[int]:
        return {os.getpid()}

    def close(self) -> None:
        self.closed = True


def text_of(audio: Samples, tokens: int | None = None) -> str:
    """One word per second of audio (or as many as are asked for), chosen by the samples."""
    start = int(np.abs(audio).sum() * 1000) % len(WORDS)
    return " ".join(WORDS[(start + i) % len(WORDS)] for i in range(tokens or 1 + len(audio) // SAMPLE_RATE))
