"""The clock: warm up, transcribe a corpus, time it, and collect what came out.

The clock runs from the first audio file being read to the last text: reading, decoding, log-mel,
encoder, decoder.  It pulls texts from an `Engine` and knows nothing else of it.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence

from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Clip, Engine, PassUsage, Text
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.watchdog import Heartbeat, StallWatchdog
from whisperbench.errors import EngineError
from whisperbench.measure.gpu import GpuMonitor, GpuReadings


@dataclasses.dataclass(frozen=True, slots=True)
class Transcript:
    """What the model made of one utterance.

    `seconds` is the audio that the model was given; `latency_seconds` runs from handing the first
    window to the engine to the last window's text (None where the engine does not tell).
    `repetition_loops` counts windows whose text repeats itself, `retried_windows` those that were run once more for it.
    """

    utt_id: str
    speaker: str | None
    seconds: float
    reference: str | None
    hypothesis: str
    output_tokens: int
    latency_seconds: float | None
    windows: int
    repetition_loops: int = 0
    retried_windows: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Pass:
    """One timed run over the corpus; transcripts in the corpus's order, dropped utterances absent.

    `frozen_seconds`: for so long nothing went on in the middle of it, so its speed is no measurement; None: it did.  Of
    several `rounds` over the corpus inside one clock all transcripts are there, one round after the other.
    """

    wall_seconds: float
    cpu_seconds: float
    transcripts: tuple[Transcript, ...]
    gpu: GpuReadings | None
    finished_seconds: tuple[float, ...] = ()
    """When each transcript came, since the clock started; in the order in which they came."""
    frozen_seconds: float | None = None
    rounds: int = 1
    shared: PassUsage | None = None

    @property
    def first_round(self) -> tuple[Transcript, ...]:
        """What is scored: a later round says the same again."""
        return self.transcripts[: len(self.transcripts) // self.rounds]

    @property
    def lost(self) -> tuple[str, ...]:
        """Engines that were lost: the texts are complete, and the times are not those of this many engines."""
        return self.shared.failed if self.shared else ()

    @property
    def utterances(self) -> int:
        return len(self.transcripts)

    @property
    def audio_seconds(self) -> float:
        return sum(t.seconds for t in self.transcripts)

    @property
    def output_tokens(self) -> int:
        return sum(t.output_tokens for t in self.transcripts)

    @property
    def repetition_loops(self) -> int:
        return sum(t.repetition_loops for t in self.transcripts)

    @property
    def retried_windows(self) -> int:
        return sum(t.retried_windows for t in self.transcripts)

    @property
    def reqs_per_sec(self) -> float:
        return self.utterances / self.wall_seconds

    @property
    def rtfx(self) -> float:
        return self.audio_seconds / self.wall_seconds

    @property
    def output_tokens_per_sec(self) -> float:
        return self.output_tokens / self.wall_seconds

    def latency_ms(self, percent: int) -> float | None:
        """The nearest-rank percentile of the utterances' latencies."""
        known = sorted(t.latency_seconds for t in self.transcripts if t.latency_seconds is not None)
        if not known:
            return None
        return 1000 * known[max(0, -(-percent * len(known) // 100) - 1)]


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement:
    """All repeats of one configuration; `median` is the repeat that the metrics are taken from.

    `single_gpu_rates`: of several GPUs, utterances per second of each while the others of its host had nothing to do.
    """

    warmup_seconds: float
    passes: tuple[Pass, ...]
    single_gpu_rates: tuple[float, ...] = ()

    @property
    def median(self) -> Pass:
        """The repeat with the median wall time (the slower of the middle two)."""
        wall = statistics.median_high(p.wall_seconds for p in self.passes)
        return next(p for p in self.passes if p.wall_seconds == wall)


def clips_of(utterances: Sequence[Utterance], count_tokens: Callable[[str], int] | None = None) -> list[Clip]:
    """A clip per utterance, in order; `count_tokens` (random weights): each writes as many as its reference has."""
    return [
        Clip(index, utterance.audio, count_tokens(utterance.reference or "") if count_tokens else None)
        for index, utterance in enumerate(utterances)
    ]


def run_timed_passes(
    engine: Engine,
    utterances: Sequence[Utterance],
    *,
    repeats: int,
    warmup: int,
    hardware: Hardware,
    on_start: Sequence[Callable[[], None]] = (),
    on_result: Sequence[Callable[[int, Transcript], None]] = (),
    count_tokens: Callable[[str], int] | None = None,
    stall_seconds: float = 0.0,
    rounds: int = 1,
    seconds: Sequence[float] = (),
) -> Measurement:
    """Warm up with the first `warmup` clips of a pass, then time `repeats` passes of `rounds` over the corpus.

    Where the utterances' `seconds` are known, the longest are handed out first: what is left at the end is short, so no
    engine waits long for the last text, and what a batch holds is of one length.  The warm-up is of the longest, too,
    so that a pass does not begin with more memory than was ever taken.
    Each callable of `on_start` is called right before each pass, each of `on_result` with (repeat, transcript) as an
    utterance finishes.  An engine that makes no progress for `stall_seconds` (0: no limit) is ended.

    Raises:
        AudioError, EngineError: as they come from reading and from the engine; nothing is skipped.
    """
    clips = clips_of(utterances, count_tokens)
    clips = [dataclasses.replace(c, index=c.index + i * len(clips)) for i in range(rounds) for c in clips]
    if seconds:
        clips.sort(key=lambda clip: -seconds[clip.index % len(seconds)])
    started = time.perf_counter()
    limit_seconds = 0 if engine.watches_itself else stall_seconds
    with StallWatchdog(engine, limit_seconds) as watch:
        for _ in engine.warm_up(watch.heartbeat.of(clips[:warmup]), clips):
            watch.heartbeat.tick()
    usual = watch.heartbeat.longest_pause
    warmup_seconds = time.perf_counter() - started
    alone = engine.single_gpu_rates(clips)
    passes = []
    for repeat in range(repeats):
        for started_pass in on_start:
            started_pass()
        with StallWatchdog(engine, limit_seconds) as watch:
            timed = _run_pass(engine, utterances, clips, hardware, repeat, on_result, watch.heartbeat)
        passes.append(dataclasses.replace(timed, frozen_seconds=watch.frozen_seconds(usual)))
    return Measurement(warmup_seconds, tuple(passes), tuple(alone))


def _run_pass(
    engine: Engine,
    utterances: Sequence[Utterance],
    clips: Sequence[Clip],
    hardware: Hardware,
    repeat: int,
    on_result: Sequence[Callable[[int, Transcript], None]],
    heartbeat: Heartbeat,
) -> Pass:
    texts: dict[int, Text] = {}
    found: dict[int, Transcript] = {}
    finished: list[float] = []
    with GpuMonitor(hardware, engine.pids) as monitor:
        cpu_started, started = time.process_time(), time.perf_counter()
        count = len(utterances)
        for text in engine.transcribe(heartbeat.of(clips)):
            heartbeat.tick()
            if text.index in texts:
                raise EngineError(f"The engine gave two texts for {utterances[text.index % count].id}.")
            texts[text.index] = text
            if text.windows:  # long audio that is dropped is no transcript
                found[text.index] = transcript = transcript_of(utterances[text.index % count], text)
                finished.append(time.perf_counter() - started)
                for receive in on_result:
                    receive(repeat, transcript)
        wall_seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    if len(texts) < len(clips):
        raise EngineError(f"The engine gave {len(texts):,} texts for {len(clips):,} utterances.")
    shared = engine.last_pass
    if shared:
        cpu_seconds += shared.cpu_seconds
    ordered = tuple(found[i] for i in sorted(found))
    return Pass(
        wall_seconds, cpu_seconds, ordered, monitor.readings, tuple(finished), rounds=len(clips) // count, shared=shared
    )


def transcript_of(utterance: Utterance, text: Text) -> Transcript:
    return Transcript(
        utt_id=utterance.id,
        speaker=utterance.speaker,
        seconds=text.audio_seconds,
        reference=utterance.reference,
        hypothesis=text.text,
        output_tokens=text.tokens,
        latency_seconds=text.latency_seconds,
        windows=text.windows,
        repetition_loops=text.repetition_loops,
        retried_windows=text.retried_windows,
    )
