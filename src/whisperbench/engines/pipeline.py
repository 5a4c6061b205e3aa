"""Input pipeline: reader threads load files and prepare windows, and one loop submits the windows to the model."""

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

Prepared = tuple[UtteranceInProgress, list[Any]]
"""An utterance, and the model's input for each of its windows."""


class SteppedModel(Protocol):
    """A model that runs in steps; `feed` calls `submit` and `step` from one thread."""

    @property
    def in_flight(self) -> int:
        """Number of submitted windows without an output."""

    def prepare(self, window: Window) -> Any:
        """Return the model's input for a window; called from several threads."""

    def submit(self, window: Window, prepared: Any) -> None:
        """Add a window to the model's next steps."""

    def step(self) -> Sequence[WindowOutput]:
        """Run the next step and return the outputs that it finished, possibly none."""


@dataclasses.dataclass(frozen=True, slots=True)
class PipelineLimits:
    """Limits of the input pipeline.

    New windows are submitted only if `burst` of them fit, so that they are encoded in one batch and the steps that
    follow only decode.
    """

    long_audio: str
    reader_threads: int
    in_flight: int  # maximum number of windows in the model
    burst: int = 1
    in_16_bits: bool = False  # the samples that the model takes

    @property
    def ahead(self) -> int:
        """Maximum number of utterances that are read ahead of the model: the next burst, and two per reader thread.

        A longer queue does not raise the throughput, and readers that are slightly faster than the model would fill it.
        """
        return self.burst + 2 * self.reader_threads

    @classmethod
    def of(cls, settings: EngineSettings) -> PipelineLimits:
        """As many windows in flight as the engine has sequences, in bursts of two encoder batches.

        A step with encoder work runs without CUDA graphs for all of its sequences, so it should be large.  On an H200,
        large-v3 with 256 sequences reached 117 utterances/s with bursts, and 106 with a queue that was always full.
        """
        return cls(
            settings.config.long_audio,
            settings.reader_threads,
            in_flight=settings.config.max_num_seqs,
            burst=max(1, min(2 * settings.windows_per_step, settings.config.max_num_seqs // 2)),
            in_16_bits=settings.mel_device == "gpu",
        )


class UtteranceQueue(queue.SimpleQueue[Utterance | None]):
    """Utterances that another thread adds, and None after the last one; iteration waits for the next one."""

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self.get, None)


def feed(model: SteppedModel, utterances: Iterable[Utterance], limits: PipelineLimits) -> Iterator[Transcription]:
    """Yield the transcription of every utterance, in the order in which they finish.

    Raises:
        AudioError: a file cannot be decoded.
        EngineError: the model failed.
    """
    waiting = iter(utterances)
    # While the next utterance has not arrived, the model's next step runs first.
    would_wait = utterances.empty if isinstance(utterances, UtteranceQueue) else lambda: False
    more = True
    reading: collections.deque[concurrent.futures.Future[Prepared]] = collections.deque()
    ready: collections.deque[tuple[Window, Any]] = collections.deque()
    in_progress: dict[str, UtteranceInProgress] = {}

    # Readers run in parallel, so each computes features with one thread of torch.
    pool = concurrent.futures.ThreadPoolExecutor(limits.reader_threads, "reader", initializer=_one_torch_thread)
    try:
        while more or reading or ready or model.in_flight:
            busy = bool(reading or ready or model.in_flight)
            while more and len(reading) + len(ready) < limits.ahead and not (busy and would_wait()):
                if (utterance := next(waiting, None)) is None:
                    more = False
                    break
                reading.append(pool.submit(_prepare, model, utterance, limits))
                busy = True
            # Wait for a reader only if the model would be idle otherwise.
            while reading and (reading[0].done() or not (ready or model.in_flight)):
                started, inputs = reading.popleft().result()
                if started.windows:
                    in_progress[started.utt_id] = started
                    ready.extend(zip(started.windows, inputs, strict=True))
                else:
                    yield started.transcription()  # long audio that is dropped has no windows
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
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(model: SteppedModel, utterance: Utterance, limits: PipelineLimits) -> Prepared:
    found = UtteranceInProgress.read(utterance, limits.long_audio, in_16_bits=limits.in_16_bits)
    return found, [model.prepare(window) for window in found.windows]


def limit_heap_growth() -> None:
    """Make glibc allocate blocks above 700 kB by mmap, so that freed blocks return to the system.

    Reader threads allocate a megabyte per utterance that the engine's thread frees, which fragments the heaps: between
    500 and 5,000 utterances the client's peak memory grew by 16 %, with this setting by 3 %.  No effect without glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, 700_000)


def _one_torch_thread() -> None:
    import torch

    torch.set_num_threads(1)
