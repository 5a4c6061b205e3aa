"""A run that shows what is measured while it is measured.

Metrics of their own, which begin with `live/`, are written by a thread with bounded work; whatever becomes of them,
the measurement goes on and the result is logged from its bundle.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from whisperbench.engines.hardware import Hardware
from whisperbench.errors import TrackingError, WhisperbenchError
from whisperbench.listener import Listener
from whisperbench.measure.clock import Transcript
from whisperbench.measure.gpu_monitor import reading_now
from whisperbench.measure.score import NOTHING, Normalizer, count_words
from whisperbench.results.contents import RunStart
from whisperbench.results.names import LIVE
from whisperbench.results.watcher import Watcher
from whisperbench.tracking import write

if TYPE_CHECKING:
    from mlflow import MlflowClient

LIVE_SECONDS = 5.0
SHARE = 0.01
"""Of one core's time, at most: the client's threads share the interpreter with what feeds the engine."""
SCORED_AT_ONCE = 16
"""Utterances that go into `live/wer` each time, the newest: it is the WER of a sample."""
LAST_WORD_SECONDS = 1.0
"""How long the end of the measurement waits for a server that has not answered yet."""


class LiveRun(Watcher):
    """Fills a run while it is measured; a context manager around the measurement.

    `live/finished` counts the utterances of all repeats and is the step of the others; `live/reqs_per_sec` is the rate
    since the clock started.
    """

    def __init__(
        self, client: MlflowClient, run_id: str, hardware: Hardware, language: str, listener: Listener
    ) -> None:
        self._client, self._run_id, self._hardware, self._listener = client, run_id, hardware, listener
        self._language = language
        self._finished, self._started = 0, 0.0
        self._newest: collections.deque[Transcript] = collections.deque(maxlen=SCORED_AT_ONCE)
        self._words = NOTHING
        self._normalizer: Normalizer | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._log_until_stopped, name="live-metrics", daemon=True)
        self._system = contextlib.ExitStack()

    def __enter__(self) -> Self:
        write.start_system_metrics(self._client, self._run_id, self._system)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clock_stopped()
        self._system.close()

    def known(self, start: RunStart) -> None:
        """Params, tags, data set and description, as far as they are known; without an answer they come at the end."""
        try:
            write.log_start(self._client, self._run_id, start)
        except TrackingError as error:
            self._listener.warned(f"{error} The measurement goes on; the run is filled when it is over.")

    def clock_started(self) -> None:
        if not self._thread.ident:  # the first of several passes
            self._started = time.perf_counter()
            self._thread.start()

    def finished(self, transcript: Transcript) -> None:
        self._finished += 1
        self._newest.append(transcript)

    def clock_stopped(self) -> None:
        self._stop.set()
        if self._thread.ident:
            self._thread.join(LAST_WORD_SECONDS)

    def _log_until_stopped(self) -> None:
        wait = LIVE_SECONDS
        while not self._stop.wait(wait):
            began = time.thread_time()
            with contextlib.suppress(WhisperbenchError):  # lost; the result is not
                finished = self._finished
                write.log_live(self._client, self._run_id, self._metrics(finished), finished)
            wait = max(LIVE_SECONDS, (time.thread_time() - began) / SHARE)

    def _metrics(self, finished: int) -> dict[str, float]:
        gpu = reading_now(self._hardware)
        found = {
            "finished": float(finished),
            "reqs_per_sec": finished / (time.perf_counter() - self._started),
            "wer": self._wer(),
            "gpu_util": gpu.util_mean if gpu else None,
            "gpu_memory_mib": gpu.memory_peak_mib if gpu else None,
            "gpu_power_watts": gpu.power_mean_watts if gpu else None,
        }
        return {f"{LIVE}{name}": value for name, value in found.items() if value is not None}

    def _wer(self) -> float | None:
        """Of all utterances that were looked at until now."""
        for _ in range(len(self._newest)):
            transcript = self._newest.popleft()
            if transcript.reference is not None:
                self._normalizer = self._normalizer or Normalizer(self._language)
                self._words += count_words(transcript, self._normalizer)
        return self._words.percent
