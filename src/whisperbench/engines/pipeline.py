"""Keeps a model busy: threads read files and prepare windows, one loop feeds them to the model and takes its texts."""

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

from whisperbench.engines.base import Clip, Text
from whisperbench.engines.settings import EngineSettings
from whisperbench.engines.windows import UtteranceInProgress, Window, WindowOutput, clip_of

M_MMAP_THRESHOLD = -3  # malloc.h


class SteppedModel(Protocol):
    """What the feed needs of a model.  `submit` and `step` are called from one thread."""

    @property
    def in_flight(self) -> int:
        """Windows submitted and not yet handed out."""

    def prepare(self, window: Window) -> Any:
        """The model's input for a window; called from many threads."""

    def submit(self, window: Window, prepared: Any) -> None: ...

    def step(self) -> Sequence[WindowOutput]:
        """Wait for the model's next step and hand out what has finished (may be nothing)."""


@dataclasses.dataclass(frozen=True, slots=True)
class PipelineLimits:
    """How a model is fed.

    `in_flight` bounds the windows inside the model.  `burst`: new windows are handed over when that many have room, so
    that they are encoded in one batch and then only decoded.  `in_16_bits`: the model takes those.
    """

    long_audio: str
    reader_threads: int
    in_flight: int
    burst: int = 1
    in_16_bits: bool = False

    @property
    def ahead(self) -> int:
        """Clips being read or waiting, at most: the burst that is due, and two for each reader.

        A longer queue feeds the model no better, and where readers are a little faster than it, it fills up over
        thousands of utterances, 1.2 MB each: memory is flat in the size of the corpus.
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


class UtteranceQueue(Iterator[Clip]):
    """Clips that arrive while an engine works, put by another thread.

    `next` waits for one, and there are no more after `close`.  To any engine it is an iterable like others; `feed` also
    asks whether it would have to wait, and lets the model step on meanwhile.
    """

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[Clip | None] = queue.SimpleQueue()
        self.closed = False

    def put(self, clips: Iterable[Clip]) -> None:
        for clip in clips:
            self._arrived.put(clip)

    def close(self) -> None:
        self.closed = True
        self._arrived.put(None)

    def would_wait(self) -> bool:
        return self._arrived.empty()

    def __next__(self) -> Clip:
        if (clip := self._arrived.get()) is None:
            self._arrived.put(None)  # for whoever asks again
            raise StopIteration
        return clip


def feed(model: SteppedModel, clips: Iterable[Clip], plan: PipelineLimits) -> Iterator[Text]:
    """The text of every clip, as they finish.

    Raises:
        AudioError, EngineError: as they come from reading and from the model; nothing is skipped.
    """
    waiting = iter(clips)
    more = True
    reading: collections.deque[concurrent.futures.Future[_Prepared]] = collections.deque()
    ready: collections.deque[tuple[Window, Any]] = collections.deque()
    in_work: dict[int, UtteranceInProgress] = {}

    with reader_threads(plan.reader_threads) as pool:
        while more or reading or ready or model.in_flight:
            busy = bool(reading or ready or model.in_flight)
            while more and len(reading) + len(ready) < plan.ahead and not (busy and _would_wait(waiting)):
                if (clip := next(waiting, None)) is None:
                    more = False
                else:
                    reading.append(pool.submit(_prepare, model, clip, plan))
                    busy = True
            # Wait for a reader only when the model would have nothing to do.
            while reading and (reading[0].done() or not (ready or model.in_flight)):
                prepared = reading.popleft().result()
                if prepared.clip.windows:
                    in_work[prepared.clip.index] = prepared.clip
                    ready.extend(zip(prepared.clip.windows, prepared.inputs, strict=True))
                else:
                    yield prepared.clip.text()  # dropped: the model gets nothing of it
            room = plan.in_flight - model.in_flight
            if room >= plan.burst or not model.in_flight or not (more or reading):
                for _ in range(min(room, len(ready))):
                    window, model_input = ready.popleft()
                    in_work[clip_of(window.key)].submitted(time.perf_counter())
                    model.submit(window, model_input)
            if model.in_flight:
                for output in model.step():
                    index = clip_of(output.key)
                    if (text := in_work[index].finish(output, time.perf_counter())) is not None:
                        del in_work[index]
                        yield text


def _would_wait(clips: Iterator[Clip]) -> bool:
    """Whether the next clip has not arrived yet, so that the model had better be let step on."""
    return isinstance(clips, UtteranceQueue) and clips.would_wait()


@dataclasses.dataclass(frozen=True, slots=True)
class _Prepared:
    clip: UtteranceInProgress
    inputs: list[Any]


def _prepare(model: SteppedModel, clip: Clip, plan: PipelineLimits) -> _Prepared:
    found = UtteranceInProgress.read(clip, plan.long_audio, in_16_bits=plan.in_16_bits)
    return _Prepared(found, [model.prepare(window) for window in found.windows])


@contextlib.contextmanager
def reader_threads(workers: int) -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    """Reader threads that are told to stop, not waited for, when the loop ends early."""
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
