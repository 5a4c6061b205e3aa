"""The seam: what an engine is to the rest of the program.

An engine takes clips and gives texts.  Everything between, reading and decoding files, windows of 30 s, features,
batches and how many of them are in flight, is its own affair.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from whisperbench.engines.hardware import Hardware
from whisperbench.engines.settings import EngineSettings
from whisperbench.inputs.audio import AudioSource


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """One utterance to transcribe, not read yet: its place in the corpus, and where its audio is.

    `tokens` set: write that many, whatever the model says (random weights never end by themselves).
    """

    index: int
    audio: AudioSource
    tokens: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """What the model made of a clip.

    `audio_seconds` and `windows` are what the model was given of it: both 0 where long audio is dropped.
    `latency_seconds` runs from handing the first window to the model to the last window's text; None where the engine
    does not tell.  `repetitions`: windows whose text repeats itself; `reruns`: windows that were run once more for it.
    """

    index: int
    text: str
    tokens: int
    audio_seconds: float
    windows: int
    latency_seconds: float | None = None
    repetitions: int = 0
    reruns: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the running engine says of itself; `engine_adds` is what it does unasked and cannot be told not to do;
    `engines` on `hosts` are more than one where it is a fleet."""

    dtype_effective: str
    kv_cache_dtype_effective: str
    engine_version: str
    torch_version: str | None
    load_seconds: float
    engine_adds: str | None = None
    engines: int = 1
    hosts: int = 1


class Engine(Protocol):
    """A model that is loaded and ready.

    One that works long between two texts may have a `pulse: Pulse` that beats with its work (engines.pulse).
    `transcribe` raises AudioError for a file that cannot be decoded and EngineError when the engine dies.
    """

    @property
    def facts(self) -> EngineFacts: ...

    def transcribe(self, clips: Iterable[Clip]) -> Iterator[Text]:
        """Exactly one text per clip, as they finish."""

    def pids(self) -> set[int]:
        """Processes of this benchmark: its own and the engine's."""

    def close(self) -> None:
        """End the engine's processes."""


StartEngine = Callable[[EngineSettings, Hardware, Path], Engine]
"""Start an engine that writes its log to a file; raises EngineError where it does not start."""
