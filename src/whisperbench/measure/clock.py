"""The clock: warm up, transcribe a corpus, time it, and collect what came out.

The clock runs from the first audio file being read to the last text: reading, decoding, log-mel,
encoder, decoder.  Everything inside it happens in `transcribe`.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import ctypes
import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from whisperbench.engines.hardware import GpuMonitor, GpuReadings, Hardware
from whisperbench.engines.settings import WINDOW_TOKENS, EngineSettings
from whisperbench.engines.vllm import Engine, Output, Request
from whisperbench.inputs.audio import SAMPLE_RATE, load_audio, windows
from whisperbench.inputs.corpus import Utterance
from whisperbench.options import BenchmarkConfig

MAX_WORKERS = 8
"""More threads than this only wait for each other: the engine's client needs the interpreter too."""

M_MMAP_THRESHOLD = -3  # malloc.h


@dataclasses.dataclass(frozen=True, slots=True)
class Transcript:
    """What the model made of one utterance.

    `seconds` is the audio that the model was given; `latency_seconds` runs from handing the first
    window to the engine to the last window's text (None with the stock front end, which does not tell).
    """

    utt_id: str
    speaker: str | None
    seconds: float
    reference: str | None
    hypothesis: str
    output_tokens: int
    latency_seconds: float | None
    windows: int


@dataclasses.dataclass(frozen=True, slots=True)
class Pass:
    """One timed run over the corpus; transcripts in the corpus's order, dropped utterances absent."""

    wall_seconds: float
    cpu_seconds: float
    transcripts: tuple[Transcript, ...]
    gpu: GpuReadings | None

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
    """All repeats of one configuration; `median` is the repeat that the metrics are taken from."""

    warmup_seconds: float
    passes: tuple[Pass, ...]

    @property
    def median(self) -> Pass:
        """The repeat with the median wall time (the slower of the middle two)."""
        wall = statistics.median_high(p.wall_seconds for p in self.passes)
        return next(p for p in self.passes if p.wall_seconds == wall)


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How a corpus is transcribed.

    `in_flight` bounds the requests inside the engine and, apart from them, the windows prepared and
    waiting; memory is flat in the size of the corpus.  `burst`: new requests are handed over when that
    many have room, so that the engine encodes them in one batch and then only decodes.  `warmup`: utterances
    transcribed before the clock starts.  `count_tokens`
    is set for random weights: an utterance then generates as many tokens as its reference has.
    """

    front_end: str
    long_audio: str
    workers: int
    in_flight: int
    burst: int = 1
    warmup: int = 8
    count_tokens: Callable[[str], int] | None = None


def plan_for(config: BenchmarkConfig, settings: EngineSettings, count_tokens: Callable[[str], int]) -> Plan:
    """The plan of a configuration.

    As many requests are in flight as the engine has sequences, and new ones are handed over in bursts of two
    encoder batches.  A step that carries encoder work runs without CUDA graphs for every sequence in it, so a few
    large such steps cost less than many small ones: on an H200, large-v3 with 256 sequences went from 106 to 117
    utterances/s with this in place of a queue that is always full; turbo stayed where it was.
    """
    windows_per_step = settings.max_num_batched_tokens // WINDOW_TOKENS
    return Plan(
        front_end=config.front_end,
        long_audio=config.long_audio,
        workers=config.workers or free_cores(),
        in_flight=config.max_num_seqs,
        burst=max(1, min(2 * windows_per_step, config.max_num_seqs // 2)),
        warmup=windows_per_step,
        count_tokens=count_tokens if config.random_weights else None,
    )


def keep_memory_flat() -> None:
    """Ask glibc to take blocks of more than 700 kB from the system and to give them back, not to keep them in heaps.

    Readers allocate what the engine's thread frees, a megabyte per utterance, and heaps grow gaps: between 500 and
    5,000 utterances the client's peak grew by 16 %, with this by 3 %.  Elsewhere than on glibc it does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, 700_000)


def free_cores() -> int:
    """Cores that this process may use, less one for the engine's own loop; at least 1, at most MAX_WORKERS."""
    return max(1, min(MAX_WORKERS, len(os.sched_getaffinity(0)) - 1))


def measure(
    engine: Engine,
    utterances: Sequence[Utterance],
    plan: Plan,
    *,
    repeats: int,
    hardware: Hardware,
    on_result: Callable[[int, Transcript], None],
) -> Measurement:
    """Warm up with the first `plan.warmup` utterances, then time `repeats` passes.

    `on_result(repeat, transcript)` is called as each utterance finishes.

    Raises:
        AudioError, EngineError: as they come from reading and from the engine; nothing is skipped.
    """
    started = time.perf_counter()
    for _ in transcribe(engine, utterances[: plan.warmup], plan):
        pass
    warmup_seconds = time.perf_counter() - started
    passes = [_timed(engine, utterances, plan, hardware, repeat, on_result) for repeat in range(repeats)]
    return Measurement(warmup_seconds, tuple(passes))


def _timed(
    engine: Engine,
    utterances: Sequence[Utterance],
    plan: Plan,
    hardware: Hardware,
    repeat: int,
    on_result: Callable[[int, Transcript], None],
) -> Pass:
    found: dict[int, Transcript] = {}
    with GpuMonitor(hardware, engine.pids) as monitor:
        cpu_started, started = time.process_time(), time.perf_counter()
        for index, transcript in transcribe(engine, utterances, plan):
            found[index] = transcript
            on_result(repeat, transcript)
        wall_seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    return Pass(wall_seconds, cpu_seconds, tuple(found[i] for i in sorted(found)), monitor.readings)


def transcribe(engine: Engine, utterances: Sequence[Utterance], plan: Plan) -> Iterator[tuple[int, Transcript]]:
    """(index, transcript) of every utterance, as they finish."""
    return (_stock if plan.front_end == "stock" else _pipelined)(engine, utterances, plan)


def _pipelined(engine: Engine, utterances: Sequence[Utterance], plan: Plan) -> Iterator[tuple[int, Transcript]]:
    """Threads read, decode and compute features; this thread feeds the engine and takes its results."""
    work = collections.deque(enumerate(utterances))
    reading: collections.deque[concurrent.futures.Future[_Prepared]] = collections.deque()
    ready: collections.deque[tuple[Request, Any]] = collections.deque()
    open_utterances: dict[int, _Open] = {}

    with reader_threads(plan.workers) as pool:
        while work or reading or ready or engine.in_flight:
            while work and len(reading) + len(ready) < plan.in_flight:
                reading.append(pool.submit(_prepare, engine, *work.popleft(), plan))
            # Wait for a reader only when the engine would have nothing to do.
            while reading and (reading[0].done() or not (ready or engine.in_flight)):
                prepared = reading.popleft().result()
                if prepared.requests:
                    open_utterances[prepared.index] = _Open(prepared.seconds, len(prepared.requests))
                    ready.extend(zip(prepared.requests, prepared.inputs, strict=True))
            room = plan.in_flight - engine.in_flight
            if room >= plan.burst or not engine.in_flight or not (work or reading):
                for _ in range(min(room, len(ready))):
                    request, prepared_input = ready.popleft()
                    open_utterances[_index(request.key)].submitted(time.perf_counter())
                    engine.submit(request, prepared_input)
            if engine.in_flight:
                for output in engine.step():
                    index = _index(output.key)
                    if (done := open_utterances[index].finish(output, time.perf_counter())) is not None:
                        del open_utterances[index]
                        yield index, done.transcript(utterances[index])


def _stock(engine: Engine, utterances: Sequence[Utterance], plan: Plan) -> Iterator[tuple[int, Transcript]]:
    """What the published script does: decode everything on one thread, then one call of `LLM.generate`."""
    opened: dict[int, _Open] = {}
    requests: list[Request] = []
    for index, utterance in enumerate(utterances):
        seconds, found = _requests(index, utterance, plan)
        if found:
            opened[index] = _Open(seconds, len(found))
            requests.extend(found)
    for output in engine.generate(requests):
        index = _index(output.key)
        if (done := opened[index].finish(output, None)) is not None:
            yield index, done.transcript(utterances[index])


@dataclasses.dataclass(frozen=True, slots=True)
class _Prepared:
    index: int
    seconds: float
    requests: list[Request]
    inputs: list[Any]


@dataclasses.dataclass(slots=True)
class _Open:
    """An utterance whose windows are on their way through the engine."""

    seconds: float
    missing: int
    started: float | None = None
    finished: float | None = None
    outputs: dict[str, Output] = dataclasses.field(default_factory=dict)

    def submitted(self, now: float) -> None:
        self.started = self.started or now

    def finish(self, output: Output, now: float | None) -> _Open | None:
        """Take one window's output; itself when that was the last one."""
        self.outputs[output.key] = output
        self.finished = now
        return self if len(self.outputs) == self.missing else None

    def transcript(self, utterance: Utterance) -> Transcript:
        parts = sorted(self.outputs.values(), key=lambda o: int(o.key.partition(":")[2]))
        timed = self.started is not None and self.finished is not None
        return Transcript(
            utt_id=utterance.id,
            speaker=utterance.speaker,
            seconds=self.seconds,
            reference=utterance.reference,
            hypothesis=" ".join(part.text for part in parts if part.text),
            output_tokens=sum(part.tokens for part in parts),
            latency_seconds=self.finished - self.started if timed else None,  # type: ignore[operator]
            windows=len(parts),
        )


def _prepare(engine: Engine, index: int, utterance: Utterance, plan: Plan) -> _Prepared:
    seconds, requests = _requests(index, utterance, plan)
    return _Prepared(index, seconds, requests, [engine.prepare(request) for request in requests])


def _requests(index: int, utterance: Utterance, plan: Plan) -> tuple[float, list[Request]]:
    """The windows of one utterance and the seconds of audio in them; none where long audio is dropped."""
    parts = windows(load_audio(utterance.audio), plan.long_audio)
    samples = sum(len(part) for part in parts)
    exact: list[int | None] = [None] * len(parts)
    if plan.count_tokens is not None and parts:
        tokens = plan.count_tokens(utterance.reference or "")
        exact = [max(1, round(tokens * len(part) / max(samples, 1))) for part in parts]
    return samples / SAMPLE_RATE, [Request(f"{index}:{i}", part, exact[i]) for i, part in enumerate(parts)]


def _index(key: str) -> int:
    return int(key.partition(":")[0])


@contextlib.contextmanager
def reader_threads(workers: int) -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    """Reader threads that are told to stop, not waited for, when the loop ends early."""
    pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="reader", initializer=_one_torch_thread)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one_torch_thread() -> None:
    """The parallelism is in the readers: one thread each inside torch."""
    import torch

    torch.set_num_threads(1)
