"""Engine interface: utterances in, transcriptions out.

An engine itself decides how it reads and decodes files, cuts windows of 30 s, computes features, forms batches and
limits the requests in flight.
"""

from __future__ import annotations

import abc
import dataclasses
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.settings import EngineSettings
from whisperbench.engines.watchdog import Heartbeat


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Transcription:
    """The transcript of one utterance.

    `seconds` and `windows` count the audio that the model transcribed; both are 0 for long audio that is dropped.
    `latency_seconds` is the time from the submission of the first window to the transcript of the last one; None if the
    engine does not measure it.  `repetition_loops` counts windows whose transcript is a repetition loop, and
    `retried_windows` those that were transcribed a second time because of one.
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

    `engine_deviations` describes changes of audio or text that no option of the engine disables.  `engines` and `hosts`
    are their numbers if several engines transcribe one corpus.
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
    """Work of several engines in one pass, with one value for each engine that did not fail.

    `finished_seconds` is the time from the start of the pass to the engine's last result.  `cpu_seconds` is the CPU
    time of the worker processes.  `failed` describes the engines that failed.
    """

    audio_seconds: tuple[float, ...]
    finished_seconds: tuple[float, ...]
    cpu_seconds: float
    failed: tuple[str, ...] = ()

    @property
    def tail_seconds(self) -> float:
        """Time from the last result of the engine that finished first to the last result of the pass."""
        return max(self.finished_seconds, default=0.0) - min(self.finished_seconds, default=0.0)

    @property
    def slowest_engine_percent(self) -> float:
        """Audio that the slowest engine transcribed, in percent of the median over the engines."""
        median = statistics.median(self.audio_seconds) if self.audio_seconds else 0.0
        return 100 * min(self.audio_seconds) / median if median else 100.0


class Engine(abc.ABC):
    """A loaded model that is ready to transcribe."""

    info: EngineInfo
    heartbeat: Heartbeat | None = None
    """Ticks with each step, in an engine that may need a long time between two results."""
    watches_itself = False
    """Whether the engine consists of several and ends a stalled one itself, so that the others continue."""
    last_pass: PassUsage | None = None

    @abc.abstractmethod
    def transcribe(self, utterances: Iterable[Utterance]) -> Iterator[Transcription]:
        """Yield exactly one transcription per utterance, in the order in which they finish.

        Raises:
            AudioError: a file cannot be decoded.
            EngineError: the engine failed.
        """

    @abc.abstractmethod
    def pids(self) -> set[int]:
        """Process ids of this process and of the engine's processes on this host."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the engine's processes."""

    def warm_up(self, first: Iterable[Utterance], utterances: Sequence[Utterance]) -> Iterable[Transcription]:  # noqa: ARG002
        """Transcribe `first`, the first of all `utterances`, before the timed region; raises as `transcribe` does."""
        return self.transcribe(first)

    def single_gpu_rates(self, utterances: Sequence[Utterance]) -> list[float]:  # noqa: ARG002
        """Utterances per second of each GPU while the others are idle, for its share of `utterances`; [] with one."""
        return []


StartEngine = Callable[[EngineSettings, Hardware, Path], Engine]
"""Start an engine with a log file; raises EngineError if it does not start."""
