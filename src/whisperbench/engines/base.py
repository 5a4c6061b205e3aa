"""Engine interface: utterances in, transcriptions out.

Reading and decoding files, windows of 30 s, features, batches and the number of requests in flight are internal to an
engine.
"""

from __future__ import annotations

import abc
import dataclasses
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.settings import EngineSettings
from whisperbench.engines.watchdog import Heartbeat


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Transcription:
    """The transcript of one utterance.

    `seconds` and `windows` are what the model was given: both 0 where long audio is dropped.  `latency_seconds` runs
    from handing the first window to the model to the transcript of the last one; None where the engine does not measure
    it.  `repetition_loops`: windows whose transcript is a repetition loop; `retried_windows`: windows that were run a
    second time because of one.
    """

    utt_id: str
    hypothesis: str
    tokens: int
    seconds: float
    windows: int
    latency_seconds: float | None = None
    repetition_loops: int = 0
    retried_windows: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class EngineInfo:
    """Properties of the running engine.

    `engine_deviations`: what it does to audio or text by itself and has no option against.  `engines` is above 1 where
    several engines work as one, on `hosts`.
    """

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
    """A model that is loaded and ready.

    `transcribe` raises AudioError for a file that cannot be decoded and EngineError when the engine dies.
    """

    heartbeat: Heartbeat | None = None
    """Of an engine that may work for long between two results: it ticks with each step of the work."""
    watches_itself: ClassVar[bool] = False
    """Whether an engine made of several ends one that stalls by itself, so that the others continue."""
    last_pass: PassUsage | None = None
    """What each of several engines did in the last pass."""

    @property
    @abc.abstractmethod
    def facts(self) -> EngineInfo: ...

    @abc.abstractmethod
    def transcribe(self, utterances: Iterable[Utterance]) -> Iterator[Transcription]:
        """Exactly one transcription per utterance, as they finish."""

    @abc.abstractmethod
    def pids(self) -> set[int]:
        """Processes of this benchmark: its own and the engine's."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the engine's processes."""

    def warm_up(self, first: Iterable[Utterance], utterances: Sequence[Utterance]) -> Iterable[Transcription]:  # noqa: ARG002
        """Transcribe the first utterances of a pass before the timed region, in which all `utterances` follow.

        Raises:
            AudioError, EngineError: as `transcribe` does.
        """
        return self.transcribe(first)

    def single_gpu_rates(self, utterances: Sequence[Utterance]) -> list[float]:  # noqa: ARG002
        """Utterances per second of each of several GPUs while the others of its host are idle, on as many utterances
        as each will have of `utterances`; empty with one GPU."""
        return []


StartEngine = Callable[[EngineSettings, Hardware, Path], Engine]
"""Starts an engine that writes its log to a file; raises EngineError where it does not start."""
