"""Input pipeline: threads read files and prepare windows, and one loop submits them to the model."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import ctypes
import dataclasses
import queue
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Transcription
from whisperbench.engines.settings import EngineSettings
from whisperbench.engines.windows import UtteranceInProgress, Window, WindowOutput

M_MMAP_THRESHOLD = -3  # malloc.h


class SteppedModel(Protocol):
    """A model that `feed` drives.  `submit` and `step` are called from one thread."""

    @property
    def in_flight(self) -> int:
        """Windows submitted whose output has not been returned."""

    def prepare(self, window: Window) -> Any:
        """The model's input for a window; called from many threads."""

    def submit(self, window: Window, prepared: Any) -> None: ...

    def step(self) -> Sequence[WindowOutput]:
        """Wait for the model's next step and return the outputs that it finished, possibly none."""


@dataclasses.dataclass(frozen=True, slots=True)
class PipelineLimits:
    """Limits of the input pipeline.

    `in_flight` bounds the windows inside the model.  `burst`: new windows are submitted when that many have room, so
    that they are encoded in one batch and then only decoded.  `in_16_bits`: the model takes 16-bit samples.
    """

    long_audio: str
    reader_threads: int
    in_flight: int
    burst: int = 1
    in_16_bits: bool = False

    @property
    def ahead(self) -> int:
        """Maximum number of utterances being read or waiting: the next burst, and two for each reader thread.

        A longer queue does not raise the throughput, and where readers are a little faster than the model, it fills up
        over thousands of utterances, 1.2 MB each.  So memory does not grow with the corpus.
        """
        return self.burst + 2 * self.reader_threads

    @classmethod
    def of(cls, settings: EngineSettings) -> PipelineLimits:
        """As many windows in flight as the engine has sequences, in bursts of two encoder batches.

        A step that carries encoder work runs without CUDA graphs for every sequence in it, so a few large such steps
        cost less than many small ones: on an H200, large-v3 with 256 sequences went from 106 to 117 utterances/s with
        this in place of a queue that is always full; turbo stayed where it was.
        """
        return cls(
            settings.config.long_audio,
            settings.reader_threads,
            in_flight=settings.config.max_num_seqs,
            burst=max(1, min(2 * settings.windows_per_step, settings.config.max_num_seqs // 2)),
            in_16_bits=settings.mel_device == "gpu",
        )


class UtteranceQueue(Iterator[Utterance]):
    """Utterances that arrive while an engine works, put by another thread.

    `next` waits for one; after `close` no more arrive.  `feed` also asks whether `next` would wait, and then runs the
    model's next step instead.
    """

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[Utterance | None] = queue.SimpleQueue()
        self.closed = False

    def put(self, utterances: Iterable[Utterance]) -> None:
        for utterance in utterances:
            self._arrived.put(utterance)

    def close(self) -> None:
        self.closed = True
        self._arrived.put(None)

    def would_wait(self) -> bool:
        return self._arrived.empty()

    def __next__(self) -> Utterance:
        if (utterance := self._arrived.get()) is None:
            self._arrived.put(None)  # for the next call
            raise StopIteration
        return utterance


def feed(model: SteppedModel, utterances: Iterable[Utterance], limits: PipelineLimits) -> Iterator[Transcription]:
    """The transcription of every utterance, as they finish.

    Raises:
        AudioError, EngineError: as they come from reading and from the model; nothing is skipped.
    """
    waiting = iter(utterances)
    more = True
    reading: collections.deque[concurrent.futures.Future[_Prepared]] = collections.deque()
    ready: collections.deque[tuple[Window, Any]] = collections.deque()
    in_progress: dict[str, UtteranceInProgress] = {}

    with reader_threads(limits.reader_threads) as pool:
        while more or reading or ready or model.in_flight:
            busy = bool(reading or ready or model.in_flight)
            while more and len(reading) + len(ready) < limits.ahead and not (busy and _would_wait(waiting)):
                if (utterance := next(waiting, None)) is None:
                    more = False
                else:
                    reading.append(pool.submit(_prepare, model, utterance, limits))
                    busy = True
            # Wait for a reader only when the model would have nothing to do.
            while reading and (reading[0].done() or not (ready or model.in_flight)):
                prepared = reading.popleft().result()
                if prepared.utterance.windows:
                    in_progress[prepared.utterance.utt_id] = prepared.utterance
                    ready.extend(zip(prepared.utterance.windows, prepared.inputs, strict=True))
                else:
                    yield prepared.utterance.transcription()  # dropped: the model is given nothing of it
            room = limits.in_flight - model.in_flight
            if room >= limits.burst or not model.in_flight or not (more or reading):
                for _ in range(min(room, len(ready))):
                    window, model_input = ready.popleft()
                    in_progress[window.utt_id].submitted(time.perf_counter())
                    model.submit(window, model_input)
            if model.in_flight:
                for output in model.step():
                    utt_id = output.window.utt_id
                    if (found := in_progress[utt_id].finish(output, time.perf_counter())) is not None:
                        del in_progress[utt_id]
                        yield found


def _would_wait(utterances: Iterator[Utterance]) -> bool:
    """Whether the next utterance has not arrived yet, so that the model's next step should run first."""
    return isinstance(utterances, UtteranceQueue) and utterances.would_wait()


@dataclasses.dataclass(frozen=True, slots=True)
class _Prepared:
    utterance: UtteranceInProgress
    inputs: list[Any]


def _prepare(model: SteppedModel, utterance: Utterance, limits: PipelineLimits) -> _Prepared:
    found = UtteranceInProgress.read(utterance, limits.long_audio, in_16_bits=limits.in_16_bits)
    return _Prepared(found, [model.prepare(window) for window in found.windows])


@contextlib.contextmanager
def reader_threads(workers: int) -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    """Reader threads; what they have not begun is cancelled when the loop ends early."""
    pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="reader", initializer=_one_torch_thread)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def limit_heap_growth() -> None:
    """Ask glibc to take blocks of more than 700 kB from the system and to give them back, not to keep them in heaps.

    Readers allocate what the engine's thread frees, a megabyte per utterance, and heaps grow gaps: between 500 and
    5,000 utterances the client's peak grew by 16 %, with this by 3 %.  Elsewhere than on glibc it does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, 700_000)


def _one_torch_thread() -> None:
    """The parallelism is in the readers: one thread each inside torch."""
    import torch

    torch.set_num_threads(1)
