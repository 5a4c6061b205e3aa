"""Progress of a run during the measurement.

A thread logs it every few seconds.  Its errors do not affect the result, which is logged from the bundle.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Self

from whisperbench.engines.hardware import Hardware
from whisperbench.errors import WhisperbenchError
from whisperbench.measure.gpu import reading_now
from whisperbench.measure.result import UtteranceResult
from whisperbench.results.names import PROGRESS
from whisperbench.tracking import runs

if TYPE_CHECKING:
    from mlflow import MlflowClient

INTERVAL_SECONDS = 5.0
EXIT_SECONDS = 1.0
"""Timeout of the wait for an unfinished request at the end of the measurement."""


class LiveProgress:
    """Logs the finished utterances of all repeats, their rate and the GPU utilisation as the tag PROGRESS.

    It is a tag because the result replaces it; metrics cannot be deleted.  The object is a context manager around the
    measurement; `on_start` and `on_result` are callbacks of the timed passes and run in the timed region.
    """

    def __init__(self, client: MlflowClient, run_id: str, hardware: Hardware) -> None:
        self._client, self._run_id, self._hardware = client, run_id, hardware
        self._finished, self._started = 0, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._log_until_stopped, name="live-progress", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.ident:
            self._thread.join(EXIT_SECONDS)

    def claim(self, bundle_id: str) -> None:
        """Tag the run with the bundle that it is measured for; an upload changes only a run with its bundle's tag.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        runs.log_now(self._client, self._run_id, tags={runs.BUNDLE_TAG: bundle_id})

    def on_start(self) -> None:
        """Start the thread at the first timed pass."""
        if not self._thread.ident:
            self._started = time.perf_counter()
            self._thread.start()

    def on_result(self, _result: UtteranceResult) -> None:
        """Count a finished utterance."""
        self._finished += 1

    def _log_until_stopped(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            with contextlib.suppress(WhisperbenchError):
                finished, seconds = self._finished, time.perf_counter() - self._started
                text = f"{finished:,} utterances finished, {finished / seconds:.2f} utterances/s"
                gpu = reading_now(self._hardware)
                if gpu and gpu.util_mean is not None:
                    text += f", GPU {gpu.util_mean:.0f} % busy"
                runs.log_now(self._client, self._run_id, tags={PROGRESS: text})
