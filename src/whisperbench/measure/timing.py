"""Timed passes: warm up, transcribe the corpus, and collect the results.

The timed region runs from the first audio file being read to the last transcript: reading, decoding, log-mel, encoder,
decoder.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence

from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Engine, PassUsage, Transcription
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.watchdog import Heartbeat, StallWatchdog
from whisperbench.errors import EngineError
from whisperbench.measure.gpu import GpuMonitor, GpuReadings
from whisperbench.measure.result import UtteranceResult

TRANSCRIPTION_FIELDS = tuple(field.name for field in dataclasses.fields(Transcription))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One timed pass over the corpus; results in the corpus's order, without utterances that were dropped.

    `invalid` is the reason why the times are not a measurement: an unusual pause, or an engine that failed.
    """

    wall_seconds: float
    cpu_seconds: float
    gpu: GpuReadings | None = None
    usage: PassUsage | None = None
    invalid: str | None = None
    results: tuple[UtteranceResult, ...] = ()

    @property
    def utterances(self) -> int:
        return len(self.results)

    @property
    def audio_seconds(self) -> float:
        return sum(result.seconds for result in self.results)

    @property
    def reqs_per_sec(self) -> float:
        return self.utterances / self.wall_seconds

    @property
    def rtfx(self) -> float:
        return self.audio_seconds / self.wall_seconds

    @property
    def output_tokens_per_sec(self) -> float:
        return sum(result.tokens for result in self.results) / self.wall_seconds

    @property
    def repetition_loops(self) -> int:
        return sum(result.repetition_loops for result in self.results)

    @property
    def retried_windows(self) -> int:
        return sum(result.retried_windows for result in self.results)

    def latency_ms(self, percent: int) -> float | None:
        """The nearest-rank percentile of the utterances' latencies."""
        known = sorted(result.latency_seconds for result in self.results if result.latency_seconds is not None)
        if not known:
            return None
        return 1000 * known[max(0, -(-percent * len(known) // 100) - 1)]


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement:
    """All repeats of one configuration.

    `single_gpu_rates`: utterances per second of each of several GPUs while the others of its host were idle.
    """

    warmup_seconds: float
    passes: tuple[Pass, ...]
    single_gpu_rates: tuple[float, ...] = ()

    @property
    def valid(self) -> tuple[Pass, ...]:
        return tuple(each for each in self.passes if each.invalid is None)

    @property
    def median(self) -> Pass:
        """The valid pass with the median wall time (the slower of the middle two), whose metrics a run has.

        Without a valid pass it is one of the others: its transcripts count, its times do not.
        """
        passes = self.valid or self.passes
        wall = statistics.median_high(each.wall_seconds for each in passes)
        return next(each for each in passes if each.wall_seconds == wall)


def run_timed_passes(
    engine: Engine,
    utterances: Sequence[Utterance],
    *,
    repeats: int,
    warmup: int,
    hardware: Hardware,
    on_start: Sequence[Callable[[], None]] = (),
    on_result: Sequence[Callable[[UtteranceResult], None]] = (),
    stall_seconds: float = 0.0,
) -> Measurement:
    """Warm up with the first `warmup` utterances of a pass, then time `repeats` passes over all of them.

    The longest are handed out first: the last ones are short then, so no engine waits long for the last transcript, and
    a batch holds utterances of similar length.  The warm-up has the longest, too, so that it reaches the peak of
    memory.
    Each callable of `on_start` is called right before each pass, each of `on_result` as an utterance finishes.  An
    engine that makes no progress for `stall_seconds` (0: no limit) is ended.

    Raises:
        AudioError, EngineError: as they come from reading and from the engine; nothing is skipped.
    """
    longest_first = sorted(utterances, key=lambda utterance: -(utterance.seconds or 0.0))
    started = time.perf_counter()
    limit_seconds = 0 if engine.watches_itself else stall_seconds
    with StallWatchdog(engine, limit_seconds) as watch:
        for _ in engine.warm_up(watch.heartbeat.of(longest_first[:warmup]), longest_first):
            watch.heartbeat.tick()
    usual = watch.heartbeat.longest_pause
    warmup_seconds = time.perf_counter() - started
    single_gpu_rates = engine.single_gpu_rates(longest_first)
    order = {utterance.utt_id: place for place, utterance in enumerate(utterances)}
    passes = []
    for repeat in range(repeats):
        for started_pass in on_start:
            started_pass()
        with StallWatchdog(engine, limit_seconds) as watch:
            timed = _run_pass(engine, longest_first, hardware, repeat, on_result, watch.heartbeat)
        results = tuple(sorted(timed.results, key=lambda result: order[result.utt_id]))
        invalid = _failed_engines(timed) or watch.unusual_pause(usual)
        passes.append(dataclasses.replace(timed, results=results, invalid=invalid))
    return Measurement(warmup_seconds, tuple(passes), tuple(single_gpu_rates))


def _failed_engines(timed: Pass) -> str | None:
    failed = timed.usage.failed if timed.usage else ()
    return f"{len(failed)} engine(s) failed: {', '.join(failed)}" if failed else None


def _run_pass(
    engine: Engine,
    utterances: Sequence[Utterance],
    hardware: Hardware,
    repeat: int,
    on_result: Sequence[Callable[[UtteranceResult], None]],
    heartbeat: Heartbeat,
) -> Pass:
    """One pass; results in the order in which they finished."""
    missing = {utterance.utt_id: utterance for utterance in utterances}
    results: list[UtteranceResult] = []
    with GpuMonitor(hardware, engine.pids) as monitor:
        cpu_started, started = time.process_time(), time.perf_counter()
        for transcription in engine.transcribe(heartbeat.of(utterances)):
            heartbeat.tick()
            if (utterance := missing.pop(transcription.utt_id, None)) is None:
                raise EngineError(f"The engine returned two transcripts of {transcription.utt_id}.")
            if transcription.windows:  # long audio that is dropped has no transcript
                result = result_of(utterance, transcription, repeat, time.perf_counter() - started)
                results.append(result)
                for receive in on_result:
                    receive(result)
        wall_seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    if missing:
        raise EngineError(f"The engine returned no transcript of {len(missing):,} of {len(utterances):,} utterances.")
    usage = engine.last_pass
    return Pass(
        wall_seconds=wall_seconds,
        cpu_seconds=cpu_seconds + (usage.cpu_seconds if usage else 0.0),
        gpu=monitor.readings,
        usage=usage,
        results=tuple(results),
    )


def result_of(
    utterance: Utterance, transcription: Transcription, repeat: int, finished_seconds: float
) -> UtteranceResult:
    return UtteranceResult(
        **{name: getattr(transcription, name) for name in TRANSCRIPTION_FIELDS},
        reference=utterance.reference,
        speaker=utterance.speaker,
        repeat=repeat,
        finished_seconds=finished_seconds,
    )
