"""One engine in a separate process: the Ray actor `EngineWorker`, and its `WorkerHandle` in the driver."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from whisperbench.corpus.corpus import Utterance
from whisperbench.engines import watchdog
from whisperbench.engines.base import Engine, EngineInfo, StartEngine, Transcription
from whisperbench.engines.hardware import detect_hardware
from whisperbench.engines.parallel.ray_cluster import Placement, on_node
from whisperbench.engines.pipeline import UtteranceQueue
from whisperbench.engines.settings import EngineSettings
from whisperbench.errors import EngineError
from whisperbench.processes.guardian import kill_children_on_exit

T = TypeVar("T")
Answer = tuple[list[Transcription], int, float]
"""New results, the ticks of the engine's heartbeat, and the CPU time of the worker process in seconds."""
Started = tuple[str, str, set[int], EngineInfo]
"""Host, device, process ids and properties of a started engine; without a GPU every engine has another device."""

ANSWER_SECONDS = 5.0  # time after which `results` returns even without results, so that a stopped process is detected
GATHER_SECONDS = 0.05  # time in which `results` collects, because hundreds of calls per second would use much CPU time
START_SECONDS = watchdog.START_SECONDS + 60.0  # the engine reports its own limit first


class EngineWorker:
    """Ray actor with one engine, which runs in its own thread; Ray calls the methods from three other threads."""

    engine: Engine

    def __init__(self, placement: Placement) -> None:
        self._placement, self.answer_seconds = placement, ANSWER_SECONDS
        self._stack = contextlib.ExitStack()
        self._passes: queue.SimpleQueue[UtteranceQueue] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Transcription | BaseException] = queue.SimpleQueue()
        self._utterances: UtteranceQueue | None = None
        self._submitted = self._returned = 0

    def start(self, start_engine: StartEngine, settings: EngineSettings, log: Path) -> Started:
        """Start the engine, whose processes end when this one does.

        Raises:
            EngineError: the engine does not start, or Ray has chosen a GPU of another type.
        """
        placement, hardware = self._placement, self._placement.hardware
        if placement.gpu_share:  # Ray has set CUDA_VISIBLE_DEVICES to the GPU that it has chosen
            hardware = detect_hardware(os.environ.get("CUDA_VISIBLE_DEVICES"))
            if hardware.gpu_name != placement.hardware.gpu_name:
                raise EngineError(
                    f"Ray chose a {hardware.gpu_name} on {platform.node()} instead of a {placement.hardware.gpu_name}. "
                    "Set CUDA_VISIBLE_DEVICES at `ray start`, so that each Ray node has GPUs of one type."
                )
        os.environ.pop("OMP_NUM_THREADS", None)  # Ray sets it to 1
        if placement.cores:
            # Linux sets the cores of one thread, and new threads inherit them.
            for thread in Path("/proc/self/task").iterdir():
                with contextlib.suppress(OSError):  # the thread has ended
                    os.sched_setaffinity(int(thread.name), placement.cores)
        self._stack.enter_context(kill_children_on_exit())
        self.drive(start_engine(settings, hardware, log))
        device = hardware.devices[0].uuid if hardware.has_gpu else placement.name
        return platform.node(), device, {os.getpid(), *self.engine.pids()}, self.engine.info

    def drive(self, engine: Engine) -> None:
        """Start the thread that transcribes submitted utterances with this engine."""
        self.engine = engine
        threading.Thread(target=self._transcribe_passes, name="engine", daemon=True).start()

    def submit(self, utterances: Sequence[Utterance], more: bool) -> None:
        """Add utterances to the current pass or a new one; without `more` they are the last of the pass."""
        self._submitted += len(utterances)
        if self._utterances is None:
            self._utterances = UtteranceQueue()
            self._passes.put(self._utterances)
        for utterance in utterances:
            self._utterances.put(utterance)
        if not more:
            self._utterances.put(None)
            self._utterances = None

    def results(self) -> Answer:
        """Wait for new results at most `answer_seconds`, then return even without results.

        Raises:
            AudioError, EngineError: raised by the engine.
        """
        found: list[Transcription] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._next_result(self.answer_seconds))
            until = time.monotonic() + GATHER_SECONDS
            while self._returned + len(found) < self._submitted:
                found.append(self._next_result(max(0.0, until - time.monotonic())))
        self._returned += len(found)
        return found, self.engine.heartbeat.ticks if self.engine.heartbeat else 0, time.process_time()

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in this process."""
        return function(*arguments)

    def close(self) -> None:
        self.engine.close()
        self._stack.close()

    def _next_result(self, timeout: float) -> Transcription:
        found = self._results.get(timeout=timeout)
        if isinstance(found, BaseException):
            raise found
        return found

    def _transcribe_passes(self) -> None:
        try:
            while True:
                for transcription in self.engine.transcribe(self._passes.get()):
                    self._results.put(transcription)
        except BaseException as error:  # raised again in `results`
            self._results.put(error)


class WorkerHandle:
    """Driver's handle of an `EngineWorker` in a Ray actor."""

    host: str
    device: str  # engines with the same one on a host share a GPU
    pids: set[int]
    info: EngineInfo
    silence = 0.0  # seconds since the call of `results` that is not answered yet
    pause = 0.0  # seconds without progress
    ticks, cpu_seconds = 0, 0.0  # in the last answer of `results`

    def __init__(self, ray: Any, placement: Placement) -> None:
        self._ray, self._placement, self.name = ray, placement, placement.name
        # Ray runs the calls of one group in order, and the groups concurrently.
        actor = ray.remote(concurrency_groups={"submit": 1, "results": 1})(EngineWorker)
        where = {"scheduling_strategy": on_node(placement.node)} if placement.node else {}
        self._actor = actor.options(num_cpus=1, num_gpus=placement.gpu_share, **where).remote(placement)

    def start(self, start_engine: StartEngine, settings: EngineSettings, log: Path) -> Future[Started]:
        """Begin to start the engine; on another host the log is written to the temporary directory."""
        here = self._placement.node in ("", self._ray.get_runtime_context().get_node_id())
        self._log = log.absolute() if here else Path(tempfile.gettempdir(), f"{log.parent.parent.name}-{log.name}")
        settings = dataclasses.replace(settings, reader_threads=self._placement.reader_threads)
        return _future(self._actor.start.remote(start_engine, settings, self._log))

    def finish_start(self, starting: Future[Started]) -> None:
        """Store the result of `start`.

        Raises:
            EngineError: the engine did not start, or is still starting.
        """
        try:
            self.host, self.device, self.pids, self.info = starting.result(0)
        except EngineError as error:
            raise EngineError(f"{self.name}: {cause_of(error)}", self._log) from error
        except Exception as error:
            reason = describe(error)
            if not starting.done():
                reason = f"within {START_SECONDS / 60:.0f} minutes; `ray status` lists GPUs that other jobs reserve"
            raise EngineError(f"{self.name} did not start ({reason}).", self._log) from error

    def submit(self, utterances: Sequence[Utterance], more: bool) -> None:
        self._actor.submit.options(concurrency_group="submit").remote(utterances, more)

    def results(self) -> Future[Answer]:
        return _future(self._actor.results.options(concurrency_group="results").remote())

    def run(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        return _future(self._actor.run.remote(function, *arguments))

    def close(self) -> Future[None]:
        return _future(self._actor.close.remote())

    def kill(self) -> None:
        """Kill the worker process, also a stopped one (Ray 2.60 needs 5 s then); its guardian kills the engine."""
        with contextlib.suppress(Exception):  # the actor or its node may be gone
            self._ray.kill(self._actor)


def cause_of(error: BaseException) -> BaseException:
    """The error that a worker raised; Ray raises another error, with a traceback as message, that contains it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def describe(error: BaseException) -> str:
    """Type of an error and the last line of its message."""
    error = cause_of(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].rstrip('.')[:300]}" if lines else type(error).__name__


def _future(reference: Any) -> Future[Any]:
    found: Future[Any] = reference.future()
    return found
