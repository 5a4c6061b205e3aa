"""The seam: what an engine is to the rest of the program.

An engine takes clips and gives texts.  Everything between, reading and decoding files, windows of 30 s, features,
batches and how many of them are in flight, is its own affair.
"""

from __future__ import annotations

import abc
import dataclasses
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from whisperbench.corpus.audio import AudioSource
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.settings import EngineSettings
from whisperbench.engines.watchdog import Heartbeat


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
    does not tell.  `repetition_loops`: windows whose text repeats itself; `retried_windows`: windows that were run
    once more for it.
    """

    index: int
    text: str
    tokens: int
    audio_seconds: float
    windows: int
    latency_seconds: float | None = None
    repetition_loops: int = 0
    retried_windows: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the running engine says of itself; `engine_deviations` is what it does unasked and cannot be told not to do;
    `engines` is above 1 where several engines work as one, on `hosts`."""

    dtype_effective: str
    kv_cache_dtype_effective: str
    engine_version: str
    torch_version: str | None
    load_seconds: float
    engine_deviations: str | None = None
    engines: int = 1
    hosts: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class PassUsage:
    """What each of several engines did in one pass.

    `audio_seconds` and `finished_seconds` (from the beginning of the pass to the last result) are by engine, of those
    that worked to the end; `failed` describes the others.  `cpu_seconds` is the CPU time of the engines' own processes.
    """

    audio_seconds: tuple[float, ...]
    finished_seconds: tuple[float, ...]
    cpu_seconds: float
    failed: tuple[str, ...] = ()

    @property
    def tail_seconds(self) -> float:
        """From the moment when the first engine had nothing left to do to the last result."""
        return max(self.finished_seconds, default=0.0) - min(self.finished_seconds, default=0.0)

    @property
    def slowest_engine_percent(self) -> float:
        """Audio that the slowest engine transcribed, in percent of the median engine's."""
        median = statistics.median(self.audio_seconds) if self.audio_seconds else 0.0
        return 100 * min(self.audio_seconds) / median if median else 100.0


class Engine(abc.ABC):
    """A model that is loaded and ready: four parts that every engine has, and some that have a meaning for a few.

    `transcribe` raises AudioError for a file that cannot be decoded and EngineError when the engine dies.
    """

    heartbeat: Heartbeat | None = None
    """Of an engine that works long between two texts: beats with its work."""
    watches_itself: ClassVar[bool] = False
    """Of an engine made of several: one that stalls is ended by itself, and the others go on."""
    last_pass: PassUsage | None = None
    """Of an engine made of several: what each of them did in the last pass."""

    @property
    @abc.abstractmethod
    def facts(self) -> EngineInfo: ...

    @abc.abstractmethod
    def transcribe(self, clips: Iterable[Clip]) -> Iterator[Text]:
        """Exactly one text per clip, as they finish."""

    @abc.abstractmethod
    def pids(self) -> set[int]:
        """Processes of this benchmark: its own and the engine's."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the engine's processes."""

    def warm_up(self, first: Iterable[Clip], clips: Sequence[Clip]) -> Iterable[Text]:  # noqa: ARG002 - one needs no more
        """Transcribe the first clips, before the clock that all `clips` will be transcribed by; texts as they come.

        Raises:
            AudioError, EngineError: as `transcribe` does.
        """
        return self.transcribe(first)

    def single_gpu_rates(self, clips: Sequence[Clip]) -> list[float]:  # noqa: ARG002 - one GPU is alone anyway
        """Of an engine on several GPUs: utterances per second of each while the others of its host do nothing; on as
        many clips as each will have of `clips`, which are those of the pass."""
        return []


StartEngine = Callable[[EngineSettings, Hardware, Path], Engine]
"""Start an engine that writes its log to a file; raises EngineError where it does not start."""
