"""`ParallelEngine`: several engines transcribe one corpus in one timed region.

The utterances of an engine that fails or stalls are assigned to the other engines, so that each utterance has exactly
one result.  The pass records which engines failed.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future
from pathlib import Path

from whisperbench.corpus.audio import AudioSource
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Engine, PassUsage, StartEngine, Transcription
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.parallel.dispatch import MAX_CHUNK, Dispatcher
from whisperbench.engines.parallel.ray_cluster import connect, disconnect, placements
from whisperbench.engines.parallel.worker import START_SECONDS, Answer, WorkerHandle, cause_of, describe
from whisperbench.engines.pipeline import PipelineLimits
from whisperbench.engines.settings import EngineSettings
from whisperbench.engines.watchdog import Heartbeat
from whisperbench.errors import EngineError, WhisperbenchError

POLL_SECONDS = 1.0
SILENT_SECONDS = 30.0  # a worker that does not answer for this long has failed; Ray itself waits for a minute
COMPARE_SECONDS = 600.0
CLOSE_SECONDS = 10.0
MAX_FILLS = 10  # times `max_in_flight` utterances in `single_gpu_rates`, so that start and end have little effect


def start_parallel(
    settings: EngineSettings, hardware: Hardware, log: Path, start_engine: StartEngine
) -> ParallelEngine:
    """Start `settings.engines` engines, each by `start_engine` in a separate process, and wait until all are ready.

    The log of engine i is `engine-i.log` beside `log`; on another host it is in the temporary directory.

    Raises:
        ConfigError: Ray is not installed.
        EngineError: a node has other versions or no free GPU, or an engine does not start.
    """
    begun = time.perf_counter()
    ray = connect(settings.config.ray_address, cpus=settings.engines)
    workers: list[WorkerHandle] = []
    try:
        workers += (WorkerHandle(ray, placement) for placement in placements(settings, hardware))
        config = dataclasses.replace(settings.config, ray_address=None)
        one = dataclasses.replace(settings, config=config, engines=1, engines_per_gpu=1)
        starting = {
            worker.start(start_engine, one, log.with_name(f"{log.stem}-{i}{log.suffix}")): worker
            for i, worker in enumerate(workers)
        }
        done, late = futures.wait(starting, START_SECONDS, futures.FIRST_EXCEPTION)
        for start in (*done, *late):
            starting[start].finish_start(start)
    except BaseException:
        for worker in workers:
            worker.kill()
        disconnect()
        raise
    engine = ParallelEngine(workers, max_in_flight(one), time.perf_counter() - begun, disconnect)
    engine.checkpoint, engine.stall_seconds = Path(settings.checkpoint), settings.stall_seconds
    return engine


def max_in_flight(settings: EngineSettings) -> int:
    """Maximum number of utterances in one engine: those that it transcribes and those that it reads ahead.

    For engine=vllm-stock the number is unlimited, because `LLM.generate` takes all inputs in one call.
    """
    if settings.config.engine == "vllm-stock":
        return 1 << 31
    if settings.batch_size:
        return 3 * settings.batch_size + MAX_CHUNK  # a BatchEngine reads two batches ahead
    limits = PipelineLimits.of(settings)
    return limits.in_flight + max(limits.burst, limits.in_flight // 4)


class ParallelEngine(Engine):
    """An `Engine` that consists of several started engines with the same settings.

    It holds at most `max_in_flight` utterances in each of them, and calls `on_close` after all have been closed.
    `load_seconds` is the time from the start of the first engine until all were ready.
    """

    watches_itself = True
    heartbeat: Heartbeat  # its longest pause is that of any of the engines
    checkpoint: Path | None = None  # directory of the weights, which all hosts must have
    silent_seconds = SILENT_SECONDS  # an engine that does not answer for this long has failed
    stall_seconds = 0.0  # an engine with work that makes no progress for this long has failed (0: no limit)

    def __init__(
        self,
        workers: Sequence[WorkerHandle],
        max_in_flight: int,
        load_seconds: float = 0.0,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._workers, self._alive = tuple(workers), list(workers)
        self._max_in_flight, self._on_close = max_in_flight, on_close
        self._failed: list[str] = []
        self.heartbeat = Heartbeat()
        self._calls: dict[WorkerHandle, Future[Answer]] = {}  # unanswered calls of `results`
        self._polled = time.monotonic()
        self.info = dataclasses.replace(
            workers[0].info,
            load_seconds=load_seconds,
            engines=len(workers),
            hosts=len({worker.host for worker in workers}),
        )

    def pids(self) -> set[int]:
        here = [worker.pids for worker in self._workers if worker.host == platform.node()]
        return {os.getpid()}.union(*here)

    def warm_up(self, first: Iterable[Utterance], utterances: Sequence[Utterance]) -> Iterable[Transcription]:
        """Compare the files of all hosts, and transcribe `first` on every engine."""
        self._require_same_files(utterances)
        self._seconds(self._alive, list(first))
        return ()

    def single_gpu_rates(self, utterances: Sequence[Utterance]) -> list[float]:
        """Utterances per second of each GPU while the others are idle; empty with a single GPU.

        All engines of the GPU transcribe the same utterances, which are taken from the whole corpus at equal distances.
        """
        by_device = defaultdict(list)
        for worker in self._alive:
            by_device[worker.host, worker.device].append(worker)
        if len(by_device) == 1:
            return []
        count = min(-(-len(utterances) // len(self._alive)), MAX_FILLS * self._max_in_flight)
        subset = [utterances[i * len(utterances) // count] for i in range(count)]
        return [count * len(group) / self._seconds(group, subset) for group in by_device.values()]

    def transcribe(self, utterances: Iterable[Utterance]) -> Iterator[Transcription]:
        """Yield exactly one transcription per utterance, until all engines have failed; then set `last_pass`."""
        cpu_before, started = {worker: worker.cpu_seconds for worker in self._alive}, time.perf_counter()
        dispatcher = Dispatcher(utterances, self._alive, self._max_in_flight)
        audio, finished = dict.fromkeys(self._alive, 0.0), dict.fromkeys(self._alive, 0.0)
        while dispatcher.unfinished:
            if not self._alive:
                raise EngineError(
                    f"All engines failed, and {dispatcher.unfinished} utterances are left. {'; '.join(self._failed)}"
                )
            for worker, chunk, more in dispatcher.assign():
                worker.submit(chunk, more)
            for worker, found in self._poll(dispatcher.held).items():
                if isinstance(found, EngineError):
                    dispatcher.remove(worker)
                    continue
                for transcription in found:
                    if dispatcher.accept(worker, transcription.utt_id):
                        audio[worker] += transcription.seconds
                        finished[worker] = time.perf_counter() - started
                        yield transcription
        self.last_pass = PassUsage(
            audio_seconds=tuple(audio[worker] for worker in self._alive),
            finished_seconds=tuple(finished[worker] for worker in self._alive),
            cpu_seconds=sum(worker.cpu_seconds - cpu_before[worker] for worker in self._alive),
            failed=tuple(self._failed),
        )

    def close(self) -> None:
        """Close all engines within CLOSE_SECONDS, and end their processes."""
        try:
            futures.wait([worker.close() for worker in self._alive], CLOSE_SECONDS)
            for worker in self._alive:
                worker.kill()
        finally:
            self._alive = []
            self._on_close()

    def _poll(self, is_busy: Callable[[WorkerHandle], object]) -> dict[WorkerHandle, list[Transcription] | EngineError]:
        """Wait until an engine answers; return new results, and an error for each engine that has failed.

        An engine has failed if its process does not answer for `silent_seconds`, or if it is busy and makes no progress
        for `stall_seconds`.  Time in which this process itself was stopped does not count.

        Raises:
            AudioError: a file cannot be decoded, so every engine would fail.
        """
        for worker in self._alive:
            if worker not in self._calls:
                self._calls[worker], worker.silence = worker.results(), 0.0
        futures.wait(self._calls.values(), POLL_SECONDS, futures.FIRST_COMPLETED)
        now = time.monotonic()
        passed, self._polled = min(now - self._polled, 2 * POLL_SECONDS), now
        found: dict[WorkerHandle, list[Transcription] | EngineError] = {}
        for worker, call in list(self._calls.items()):
            failure: BaseException | None = None
            worker.silence += passed
            worker.pause = worker.pause + passed if is_busy(worker) else 0.0
            self.heartbeat.paused(worker.pause)
            if call.done():
                del self._calls[worker]
                if not (failure := call.exception()):
                    found[worker], ticks, worker.cpu_seconds = call.result()
                    if found[worker] or ticks != worker.ticks:
                        worker.pause, worker.ticks = 0.0, ticks
            elif worker.silence > self.silent_seconds:
                failure = TimeoutError(f"no answer for {self.silent_seconds:.0f} s")
            if 0 < self.stall_seconds < worker.pause:
                limit = f"{self.stall_seconds / 60:g} minutes"
                failure = failure or TimeoutError(f"no progress for {limit}, which is the limit stall_minutes")
            if failure:
                found[worker] = self._fail(worker, failure)
        return found

    def _fail(self, worker: WorkerHandle, error: BaseException) -> EngineError:
        """Remove and kill a failed engine, and return an error that describes the failure.

        Raises:
            WhisperbenchError: the error is not one of the engine.
        """
        cause = cause_of(error)
        if isinstance(cause, WhisperbenchError) and not isinstance(cause, EngineError):
            raise cause from error
        self._alive.remove(worker)
        self._calls.pop(worker, None)
        worker.kill()
        self._failed.append(f"{worker.name} on {worker.host} failed ({describe(error)})")
        return EngineError(self._failed[-1], getattr(cause, "log", None))

    def _seconds(self, workers: Sequence[WorkerHandle], utterances: Sequence[Utterance]) -> float:
        """Let each of these engines transcribe all `utterances`, and return the seconds until the last has finished.

        The failure of an engine ends the run, because the timed region has not begun.
        """
        started, unfinished = time.perf_counter(), dict.fromkeys(workers, len(utterances))
        for worker in workers:
            worker.submit(utterances, False)
        while any(unfinished.values()):
            for worker, found in self._poll(unfinished.get).items():
                if isinstance(found, EngineError):
                    raise EngineError(f"{found} before the timed region.", found.log)
                if found:
                    unfinished[worker] -= len(found)
        return time.perf_counter() - started

    def _require_same_files(self, utterances: Sequence[Utterance]) -> None:
        """Compare the sizes of weights and audio files on all hosts; paths in the hub's cache contain the revision.

        Raises:
            EngineError: a file differs, or a host does not answer.
        """
        others = {worker.host: worker for worker in self._alive if worker.host != platform.node()}
        weights = sorted(self.checkpoint.iterdir()) if others and self.checkpoint else []
        files: list[AudioSource] = [path for path in weights if path.is_file()]
        files += (utterance.audio for utterance in utterances)
        for host, worker in others.items():
            try:
                sizes = worker.run(_sizes, files).result(COMPARE_SECONDS)
            except Exception as error:
                raise EngineError(f"{self._fail(worker, error)} before the timed region.") from error
            for file, expected, found in zip(files, _sizes(files), sizes, strict=True):
                if found != expected:
                    raise EngineError(
                        f"{file} differs: {expected} bytes on {platform.node()}, {found} bytes on {host} "
                        "(-1: no such file). Copy the checkpoint and the corpus to the same paths on every host."
                    )


def _sizes(files: Iterable[AudioSource]) -> list[int]:
    """Size of each file on this host, in bytes; -1 for a missing file."""
    found = []
    for each in files:
        try:
            with each.open("rb") as file:
                found.append(file.seek(0, os.SEEK_END))
        except OSError:
            found.append(-1)
    return found
