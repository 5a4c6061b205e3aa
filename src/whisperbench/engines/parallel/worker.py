"""One engine in a process of its own: the Ray actor `EngineWorker`, and its `WorkerHandle` in the driver."""

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
from whisperbench.engines.base import Engine, EngineInfo, StartEngine, Transcription
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.parallel.ray_cluster import Placement, on_node
from whisperbench.engines.pipeline import UtteranceQueue
from whisperbench.engines.settings import EngineSettings
from whisperbench.errors import EngineError, WhisperbenchError
from whisperbench.processes.guardian import kill_children_on_exit

T = TypeVar("T")
Answer = tuple[list[Transcription], int, float]
"""New results, a counter that grows while the engine makes progress, and the CPU time of its process in seconds."""

ANSWER_SECONDS = 5.0  # `results` returns after this time even without results, so that a stopped process is noticed
GATHER_SECONDS = 0.05  # `results` gathers for this long, because hundreds of calls per second would cost CPU time
PLACEMENT_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A started engine; engines of one host with the same `device` share a GPU; without a GPU each has its own."""

    host: str
    device: str
    pids: frozenset[int]
    engine: EngineInfo


class EngineWorker:
    """An engine and the thread that runs it; `submit`, `results` and other calls come from three further threads."""

    engine: Engine

    def __init__(self, placement: Placement) -> None:
        self._placement, self.answer_seconds = placement, ANSWER_SECONDS
        self._stack = contextlib.ExitStack()
        self._passes: queue.SimpleQueue[UtteranceQueue] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Transcription | BaseException] = queue.SimpleQueue()
        self._clips: UtteranceQueue | None = None
        self._submitted = self._returned = 0

    def start(self, start_engine: StartEngine, settings: EngineSettings, hardware: Hardware, log: Path) -> WorkerInfo:
        """Start the engine; its processes end with this one.

        Raises:
            EngineError: the engine does not start.
        """
        for name, value in self._placement.environment.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        if self._placement.cores:
            for thread in Path("/proc/self/task").iterdir():  # Linux sets one thread; new ones inherit
                with contextlib.suppress(OSError):  # the thread has ended
                    os.sched_setaffinity(int(thread.name), self._placement.cores)
        self._stack.enter_context(kill_children_on_exit())
        self.drive(start_engine(settings, hardware, log))
        device = (os.environ.get("CUDA_VISIBLE_DEVICES") if hardware.has_gpu else None) or self._placement.name
        return WorkerInfo(platform.node(), device, frozenset({os.getpid(), *self.engine.pids()}), self.engine.facts)

    def drive(self, engine: Engine) -> None:
        """Begin to transcribe submitted utterances with this engine, in a thread."""
        self.engine = engine
        threading.Thread(target=self._transcribe_passes, name="engine", daemon=True).start()

    def submit(self, clips: Sequence[Utterance], more: bool) -> None:
        """Add utterances to the pass, or begin one; without `more` the engine does not wait for further ones."""
        self._submitted += len(clips)
        if self._clips is None:
            self._clips = UtteranceQueue()
            self._passes.put(self._clips)
        self._clips.put(clips)
        if not more:
            self._clips.close()
            self._clips = None

    def results(self) -> Answer:
        """Wait for results, but return without any after `answer_seconds`.

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
                for text in self.engine.transcribe(self._passes.get()):
                    self._results.put(text)
        except BaseException as error:  # raised again in `results`
            self._results.put(error)


class WorkerHandle:
    """An `EngineWorker` in a Ray actor.

    Attributes:
        info: the started engine.
        silence: seconds since a call that is not answered yet.
        pause: seconds without progress.
        ticks: last value of the counter of `EngineWorker.results`.
        cpu_seconds: CPU time of its process at the last answer of `EngineWorker.results`.
    """

    info: WorkerInfo
    silence = pause = cpu_seconds = 0.0
    ticks = 0

    def __init__(self, ray: Any, placement: Placement) -> None:
        self._ray, self._placement, self.name = ray, placement, placement.name
        # Calls of one group run in order; groups run concurrently.
        actor = ray.remote(concurrency_groups={"submit": 1, "results": 1})(EngineWorker)
        where = {} if placement.node is None else {"scheduling_strategy": on_node(placement.node)}
        options = {"num_cpus": 1, "num_gpus": placement.gpu_share, "max_restarts": 0, "max_task_retries": 0, **where}
        self._actor = actor.options(**options).remote(placement)

    def wait_for_process(self) -> None:
        """Wait until Ray has started its process.

        Raises:
            EngineError: the process does not start within PLACEMENT_SECONDS.
        """
        try:
            self._ray.get(self._actor.run.remote(os.getpid), timeout=PLACEMENT_SECONDS)
        except Exception as error:
            raise EngineError(
                f"Ray did not start the process of {self.name} within {PLACEMENT_SECONDS:.0f} s ({describe(error)}). "
                "Other jobs probably hold the cluster's GPUs. `ray status` lists what is reserved."
            ) from error

    def start(self, start_engine: StartEngine, settings: EngineSettings, hardware: Hardware, log: Path) -> Any:
        """Begin to start its engine; returns the reference to wait for.  On another host the log is in the temporary
        directory."""
        here = self._placement.node in (None, self._ray.get_runtime_context().get_node_id())
        self._log = log.absolute() if here else Path(tempfile.gettempdir(), f"{log.parent.parent.name}-{log.name}")
        settings = dataclasses.replace(settings, reader_threads=self._placement.reader_threads)
        return self._actor.start.remote(start_engine, settings, hardware, self._log)

    def finish_start(self, starting: Any) -> None:
        """Store the result of a start.

        Raises:
            EngineError: the engine did not start.
        """
        try:
            self.info = self._ray.get(starting)
        except WhisperbenchError as error:
            raise EngineError(f"{self.name}: {cause_of(error)}", self._log) from error
        except self._ray.exceptions.RayError as error:
            raise EngineError(f"{self.name} did not start ({describe(error)}).", self._log) from error

    def submit(self, clips: Sequence[Utterance], more: bool) -> None:
        self._actor.submit.options(concurrency_group="submit").remote(clips, more)

    def results(self) -> Future[Answer]:
        return _future(self._actor.results.options(concurrency_group="results").remote())

    def run(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        return _future(self._actor.run.remote(function, *arguments))

    def close(self) -> Future[None]:
        answer = _future(self._actor.close.remote())
        self._actor.__ray_terminate__.remote()
        return answer

    def kill(self) -> None:
        """Kill its process, even one that is stopped (Ray 2.60 needs 5 s for that); its guardian kills the engine."""
        with contextlib.suppress(Exception):  # the actor or its node may be gone
            self._ray.kill(self._actor)


def cause_of(error: BaseException) -> BaseException:
    """The error that a worker raised; Ray raises a copy whose message is a traceback, with the original inside."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def describe(error: BaseException) -> str:
    """The type of an error, and the last line of its message."""
    error = cause_of(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].rstrip('.')[:300]}" if lines else type(error).__name__


def _future(reference: Any) -> Future[Any]:
    found: Future[Any] = reference.future()
    return found
