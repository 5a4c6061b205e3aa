"""Several engines without Ray: the same workers in threads of this process, and small engines for real actors."""

from __future__ import annotations

import collections
import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support.fakes import NO_GPU, FakeEngine
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Engine, EngineInfo, Transcription
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.parallel.ray_cluster import Placement
from whisperbench.engines.parallel.worker import Answer, EngineWorker, WorkerHandle
from whisperbench.engines.settings import EngineSettings
from whisperbench.errors import EngineError

ANSWER_SECONDS = 0.1  # so that tests need not wait for the real limits


class QuickEngine(Engine):
    """An `Engine` that reads nothing and names each clip by its id, after `delay` seconds; `before` may raise."""

    info = EngineInfo("float32", "float32", "0.0", "0.0", 0.1)

    def __init__(self, delay: float = 0.0, before: Callable[[Utterance], None] = lambda _clip: None) -> None:
        self.delay, self.before, self.closed = delay, before, False
        self.seen: list[str] = []

    def transcribe(self, clips: Iterable[Utterance]) -> Iterator[Transcription]:
        for clip in clips:
            self.seen.append(clip.utt_id)
            self.before(clip)
            time.sleep(self.delay)
            yield Transcription(utt_id=clip.utt_id, hypothesis=f"clip {clip.utt_id}", tokens=1, seconds=1.0, windows=1)

    def pids(self) -> set[int]:
        return set()

    def close(self) -> None:
        self.closed = True


class ReadAheadEngine(QuickEngine):
    """Reads two batches ahead of the one that it gathers, and waits for them, as the engines beside vLLM do."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch

    def transcribe(self, clips: Iterable[Utterance]) -> Iterator[Transcription]:
        arriving, ahead, batch = iter(clips), collections.deque[Utterance](), list[Utterance]()
        while True:
            ahead.extend(itertools.islice(arriving, 2 * self.batch - len(ahead)))
            if ahead:
                batch.append(ahead.popleft())
            if len(batch) == self.batch or not ahead:
                yield from super().transcribe(batch)
                batch = []
            if not ahead:
                return


class InProcessHandle(WorkerHandle):
    """A worker in threads.  `killed`: its calls fail from now on.  `stopped`: they are not answered any more."""

    def __init__(self, name: str, engine: QuickEngine, host: str = "here", device: str = "") -> None:
        self.name, self.host, self.device, self.pids, self.info = name, host, device or name, set(), engine.info
        self.killed, self.stopped = threading.Event(), threading.Event()
        self._worker = EngineWorker(Placement(name, NO_GPU))
        self._worker.answer_seconds = ANSWER_SECONDS
        self._worker.drive(engine)
        # As in an actor: calls of a group run one after the other, and groups run concurrently.
        self._pools = {name: ThreadPoolExecutor(1) for name in ("submit", "results", "others")}

    def submit(self, clips: Sequence[Utterance], more: bool) -> None:
        self._call("submit", self._worker.submit, clips, more)

    def results(self) -> Future[Answer]:
        return self._call("results", self._worker.results)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        return self._call("others", self._worker.run, function, *arguments)

    def close(self) -> Future[None]:
        return self._call("others", self._worker.close)

    def kill(self) -> None:
        self.killed.set()
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def _call(self, group: str, method: Callable[..., Any], *arguments: Any) -> Future[Any]:
        answer: Future[Any] = Future()

        def run() -> None:
            try:
                found, failed = method(*arguments), None
            except BaseException as error:
                found, failed = None, error
            if self.killed.is_set():
                failed = ConnectionError("The actor died")
            if not self.stopped.is_set():
                answer.set_exception(failed) if failed else answer.set_result(found)

        if self.killed.is_set():
            answer.set_exception(ConnectionError("The actor died"))
        else:
            self._pools[group].submit(run)
        return answer


def clips(count: int, folder: Path = Path("/nowhere")) -> list[Utterance]:
    """Clips whose files are not read."""
    paths = [folder / f"{index}.flac" for index in range(count)]
    return [Utterance(utt_id=path.stem, audio=path, reference="a", speaker=None) for path in paths]


class EngineThatDoesNotStart(FakeEngine):
    """Raises with its log."""

    def __init__(self, settings: EngineSettings, hardware: Hardware, log: Path) -> None:
        super().__init__(settings, hardware, log)
        raise EngineError("The engine did not start: out of memory.", log)


class EngineWithASemaphore(FakeEngine):
    """Writes the name of a semaphore to its log, which a child process has left, as an engine that is ended does."""

    def __init__(self, settings: EngineSettings, hardware: Hardware, log: Path) -> None:
        super().__init__(settings, hardware, log)
        child = multiprocessing.get_context("spawn").Process(target=leave_a_semaphore, args=(log,))
        child.start()
        child.join()


def leave_a_semaphore(log: Path) -> None:
    lock: Any = multiprocessing.get_context("spawn").Lock()
    log.write_text(lock._semlock.name)
    os._exit(0)
