"""Base class of the engines for comparison: batches of windows, transcribed in this process."""

from __future__ import annotations

import abc
import collections
import concurrent.futures
import contextlib
import itertools
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Engine, EngineInfo, Transcription
from whisperbench.engines.engine_log import MAX_CAUSE, NO_MEMORY, output_to
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.settings import EngineSettings
from whisperbench.engines.windows import UtteranceInProgress, Window, WindowOutput
from whisperbench.errors import EngineError
from whisperbench.util import installed_version


class BatchEngine(Engine):
    """An `Engine` in this process; a subclass loads its model and transcribes one batch.

    Reader threads load the files ahead of the model, as with vLLM.  Everything else, including the features, follows
    the documentation of the engine.

    Raises:
        EngineError: the model cannot be loaded; the message names the cause.
    """

    package: str
    """The distribution whose version is recorded."""
    deviations: str | None = None
    """How the engine changes audio or text in a way that no option disables; None if it does not."""

    def __init__(self, settings: EngineSettings, hardware: Hardware, log: Path) -> None:
        self.settings, self.log = settings, log
        self.device = "cuda" if hardware.has_gpu else "cpu"
        started = time.perf_counter()
        with output_to(log), self._wrap_errors("did not start"):
            dtype = self.load()
        self.info = EngineInfo(
            dtype_effective=dtype,
            kv_cache_dtype_effective=dtype,
            engine_version=installed_version(self.package) or "unknown",
            torch_version=installed_version("torch"),
            load_seconds=time.perf_counter() - started,
            engine_deviations=self.deviations,
        )

    @abc.abstractmethod
    def load(self) -> str:
        """Load the model onto `device` and return its dtype."""

    @abc.abstractmethod
    def transcribe_batch(self, windows: Sequence[Window]) -> list[WindowOutput]:
        """Transcribe at most `batch_size` windows by greedy decoding, in their order."""

    def pids(self) -> set[int]:
        return {os.getpid()}

    def close(self) -> None:
        """Do nothing, because the engine has no other process."""

    def transcribe(self, utterances: Iterable[Utterance]) -> Iterator[Transcription]:
        in_progress: dict[str, UtteranceInProgress] = {}
        windows: list[Window] = []
        for found in itertools.chain(self._read_ahead(utterances), [None]):
            if found is not None and found.windows:
                in_progress[found.utt_id] = found
                windows.extend(found.windows)
            elif found is not None:
                yield found.transcription()  # long audio that is dropped has no windows
            while windows and (found is None or len(windows) >= self.settings.batch_size):
                batch, windows = windows[: self.settings.batch_size], windows[self.settings.batch_size :]
                for window in batch:
                    in_progress[window.utt_id].submitted(time.perf_counter())
                with self._wrap_errors("failed"):
                    outputs = self.transcribe_batch(batch)
                for output in outputs:
                    utt_id = output.window.utt_id
                    if (finished := in_progress[utt_id].finish(output, time.perf_counter())) is not None:
                        del in_progress[utt_id]
                        yield finished

    def _read_ahead(self, utterances: Iterable[Utterance]) -> Iterator[UtteranceInProgress]:
        """Utterances with their windows, in order; at most two batches are read ahead of the model."""
        waiting = iter(utterances)
        reading: collections.deque[concurrent.futures.Future[UtteranceInProgress]] = collections.deque()
        pool = concurrent.futures.ThreadPoolExecutor(self.settings.reader_threads, thread_name_prefix="reader")
        try:
            while True:
                for utterance in itertools.islice(waiting, 2 * self.settings.batch_size - len(reading)):
                    reading.append(pool.submit(UtteranceInProgress.read, utterance, self.settings.config.long_audio))
                if not reading:
                    return
                yield reading.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    @contextlib.contextmanager
    def _wrap_errors(self, what: str) -> Iterator[None]:
        """Turn an exception of the engine into an EngineError that names the engine and the option to change."""
        try:
            yield
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"[:MAX_CAUSE].rstrip(".")
            size = self.settings.batch_size
            remedy = f"Lower batch_size={size}" if size > 1 else "Use a smaller model, or a GPU with more memory"
            advice = f" {remedy}." if re.search(NO_MEMORY, cause) else ""
            raise EngineError(
                f"{self.settings.config.engine} {what}: {cause}.{advice} Engine log: {self.log}", self.log
            ) from error
