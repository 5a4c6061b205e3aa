"""Warm-up, and timed passes over the corpus.

The timed region starts before the first audio file is read and ends with the last transcript.  It includes reading and
decoding of audio, log-mel features, encoder and decoder.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence

from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Engine, PassUsage, Transcription
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.watchdog import Heartbeat, stall_limit
from whisperbench.errors import EngineError
from whisperbench.measure.gpu import GpuReadings, start_sampling
from whisperbench.measure.load import MachineLoad, start_measuring
from whisperbench.measure.result import UtteranceResult

TRANSCRIPTION_FIELDS = tuple(field.name for field in dataclasses.fields(Transcription))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One timed pass; results are in the order of the corpus, without utterances dropped by long_audio=drop.

    `invalid` is the reason why its times are not used: an unusual pause, or a failed engine.  `load` is None if the
    pass was too short.
    """

    wall_seconds: float
    cpu_seconds: float
    gpu: GpuReadings | None = None
    load: MachineLoad | None = None
    usage: PassUsage | None = None
    invalid: str | None = None
    results: tuple[UtteranceResult, ...] = ()

    @property
    def disturbance(self) -> str | None:
        """The reason why the speed may be too low (another program on the GPU or the CPU), or None."""
        return (self.gpu.disturbance if self.gpu else None) or (self.load.disturbance if self.load else None)

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
        """The nearest-rank percentile of the latencies in milliseconds, or None without latencies."""
        known = sorted(result.latency_seconds for result in self.results if result.latency_seconds is not None)
        if not known:
            return None
        return 1000 * known[max(0, -(-percent * len(known) // 100) - 1)]


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement:
    """All repeats of one configuration.

    `single_gpu_rates` holds the throughput of each of several GPUs, in utterances per second, measured while the other
    GPUs of its host were idle.
    """

    warmup_seconds: float
    passes: tuple[Pass, ...]
    single_gpu_rates: tuple[float, ...] = ()

    @property
    def valid(self) -> tuple[Pass, ...]:
        """The passes whose times are used: those without a disturbance, if there are any."""
        valid = tuple(each for each in self.passes if each.invalid is None)
        return tuple(each for each in valid if each.disturbance is None) or valid

    @property
    def disturbance(self) -> str | None:
        """The reason of the most disturbed pass, and the number of disturbed passes if there are several; or None."""
        disturbed = [each for each in self.passes if each.disturbance]
        if not disturbed:
            return None
        worst = max(disturbed, key=lambda each: each.load.other_percent if each.load else 0.0)
        count = f" in {len(disturbed)} of {len(self.passes)} passes" if len(self.passes) > 1 else ""
        return f"{worst.disturbance}{count}"

    @property
    def is_disturbed(self) -> bool:
        """Whether the times are those of disturbed passes, because every valid pass was disturbed."""
        return any(each.disturbance for each in self.valid)

    @property
    def median(self) -> Pass:
        """The valid pass with the median wall time (of an even number, the slower of the middle two).

        Without a valid pass, an invalid one is returned, of which only the transcripts are used.
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
    """Warm up with the `warmup` longest utterances, then time `repeats` passes over all utterances, longest first.

    So a pass ends with short ones, which engines finish at about the same time, batches hold utterances of similar
    length, and the warm-up reaches the peak of memory usage.  `on_start` is called before each pass, `on_result` after
    each utterance.  An engine that makes no progress for `stall_seconds` (0: no limit) is killed.

    Raises:
        AudioError: a file cannot be decoded.
        EngineError: the engine failed, or did not return exactly one transcription of each utterance.
    """
    longest_first = sorted(utterances, key=lambda utterance: -(utterance.seconds or 0.0))
    started = time.perf_counter()
    limit_seconds = 0 if engine.watches_itself else stall_seconds
    with stall_limit(engine, limit_seconds) as heartbeat:
        for _ in engine.warm_up(heartbeat.of(longest_first[:warmup]), longest_first):
            heartbeat.tick()
    usual_pause = heartbeat.longest_pause
    warmup_seconds = time.perf_counter() - started
    single_gpu_rates = engine.single_gpu_rates(longest_first)
    position = {utterance.utt_id: index for index, utterance in enumerate(utterances)}
    passes = []
    for repeat in range(repeats):
        for callback in on_start:
            callback()
        with stall_limit(engine, limit_seconds) as heartbeat:
            timed = _run_pass(engine, longest_first, hardware, repeat, on_result, heartbeat)
        results = tuple(sorted(timed.results, key=lambda result: position[result.utt_id]))
        invalid = timed.invalid or heartbeat.unusual_pause(usual_pause)
        passes.append(dataclasses.replace(timed, results=results, invalid=invalid))
    return Measurement(warmup_seconds, tuple(passes), tuple(single_gpu_rates))


def _run_pass(
    engine: Engine,
    utterances: Sequence[Utterance],
    hardware: Hardware,
    repeat: int,
    on_result: Sequence[Callable[[UtteranceResult], None]],
    heartbeat: Heartbeat,
) -> Pass:
    """One pass, with results in the order of completion."""
    missing = {utterance.utt_id: utterance for utterance in utterances}
    results: list[UtteranceResult] = []
    load_since_start = start_measuring(engine.pids)
    stop_sampling = start_sampling(hardware, engine.pids)
    try:
        cpu_started, started = time.process_time(), time.perf_counter()
        for transcription in engine.transcribe(heartbeat.of(utterances)):
            heartbeat.tick()
            if (utterance := missing.pop(transcription.utt_id, None)) is None:
                raise EngineError(f"The engine returned two transcripts of {transcription.utt_id}.")
            if transcription.windows:  # long_audio=drop transcribes no window
                result = result_of(utterance, transcription, repeat, time.perf_counter() - started)
                results.append(result)
                for callback in on_result:
                    callback(result)
        wall_seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    finally:
        gpu = stop_sampling()
    load = load_since_start()
    if missing:
        raise EngineError(f"The engine returned no transcript of {len(missing):,} of {len(utterances):,} utterances.")
    usage = engine.last_pass
    failed = usage.failed if usage else ()
    return Pass(
        wall_seconds=wall_seconds,
        cpu_seconds=cpu_seconds + (usage.cpu_seconds if usage else 0.0),
        gpu=gpu,
        load=load,
        usage=usage,
        invalid=f"{len(failed)} engine(s) failed: {', '.join(failed)}" if failed else None,
        results=tuple(results),
    )


def result_of(
    utterance: Utterance, transcription: Transcription, repeat: int, finished_seconds: float
) -> UtteranceResult:
    """A transcription joined with its utterance; `finished_seconds` is the time since the start of the pass."""
    return UtteranceResult(
        **{name: getattr(transcription, name) for name in TRANSCRIPTION_FIELDS},
        reference=utterance.reference,
        speaker=utterance.speaker,
        repeat=repeat,
        finished_seconds=finished_seconds,
    )
