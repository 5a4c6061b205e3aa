"""Engines of a fleet without Ray: the same members, in threads of this process, that can be killed and frozen."""

from __future__ import annotations

import collections
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support.fakes import FakeEngine
from whisperbench.engines.feed import ClipQueue
from whisperbench.engines.fleet_member import FleetMember, MemberFacts, Place, Signs, Usage
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.seam import Clip, Engine, EngineFacts, Text
from whisperbench.engines.settings import EngineSettings
from whisperbench.errors import EngineError
from whisperbench.inputs.audio import AudioSource

ANSWER_SECONDS = 0.1  # a sign of life so often, so that tests need not wait for the real limits
FACTS = EngineFacts("float32", "float32", "0.0", "0.0", 0.1)


class QuickEngine(Engine):
    """An `Engine` that reads nothing: a clip's text is its index; `delay` seconds each; `fails` may raise."""

    facts = FACTS

    def __init__(self, delay: float = 0.0, fails: Callable[[Clip], None] = lambda _clip: None) -> None:
        self.delay, self.fails, self.closed = delay, fails, False
        self.seen: list[int] = []

    def transcribe(self, clips: Iterable[Clip]) -> Iterator[Text]:
        for clip in clips:
            self.seen.append(clip.index)
            self.fails(clip)
            time.sleep(self.delay)
            yield Text(clip.index, f"clip {clip.index}", 1, 1.0, 1)

    def pids(self) -> set[int]:
        return set()

    def close(self) -> None:
        self.closed = True


class BatchEngine(QuickEngine):
    """Takes so many clips before it begins, as engines do that know nothing of feeds."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch

    def transcribe(self, clips: Iterable[Clip]) -> Iterator[Text]:
        waiting: list[Clip] = []
        for clip in clips:
            waiting.append(clip)
            if len(waiting) == self.batch:
                yield from super().transcribe(waiting)
                waiting = []
        yield from super().transcribe(waiting)


class ReadAheadEngine(QuickEngine):
    """Keeps two batches read ahead of the one that it gathers, and waits for them, as peers of vLLM do."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch

    def transcribe(self, clips: Iterable[Clip]) -> Iterator[Text]:
        arriving, ahead, batch = iter(clips), collections.deque[Clip](), list[Clip]()
        while True:
            ahead.extend(itertools.islice(arriving, 2 * self.batch - len(ahead)))
            if ahead:
                batch.append(ahead.popleft())
            if len(batch) == self.batch or not ahead:
                yield from super().transcribe(batch)
                batch = []
            if not ahead:
                return


class LocalMember:
    """A `Member` in threads; without a `device` it shares none.

    `killed`: its calls fail from now on.  `frozen`: they are never answered.
    """

    def __init__(self, name: str, engine: QuickEngine, host: str = "here", device: str = "") -> None:
        self.name, self.engine = name, engine
        self.facts = MemberFacts(host, device or name, {}, engine.facts)
        self.killed, self.frozen = threading.Event(), threading.Event()
        self._member = FleetMember(Place(name))
        self._member.answer_seconds = ANSWER_SECONDS
        self._member.drive(engine)
        # As in an actor: calls of a group one after the other, and groups beside each other.
        self._pools = {group: ThreadPoolExecutor(1, group) for group in ("clips", "texts", "others")}

    def put(self, clips: Sequence[Clip], more: bool) -> None:
        self._call("clips", self._member.put, clips, more)

    def take(self) -> Future[Signs]:
        return self._call("texts", self._member.take)

    def seconds_alone(self, clips: Sequence[Clip]) -> Future[float]:
        return self._call("others", self._member.seconds_alone, clips)

    def usage(self) -> Future[Usage]:
        return self._call("others", self._member.usage)

    def digest(self, paths: Sequence[Path], clips: Sequence[AudioSource]) -> Future[str]:
        return self._call("others", self._member.digest, paths, clips)

    def close(self) -> Future[None]:
        return self._call("others", self._member.close)

    def kill(self) -> None:
        self.killed.set()
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def _call(self, group: str, method: Callable[..., Any], *given: Any) -> Future[Any]:
        answer: Future[Any] = Future()

        def run() -> None:
            try:
                found = method(*given)
            except BaseException as error:
                found, failed = None, error
            else:
                failed = ConnectionError("The actor died") if self.killed.is_set() else None
            if self.frozen.is_set():
                return
            answer.set_exception(failed) if failed else answer.set_result(found)

        if self.killed.is_set():
            answer.set_exception(ConnectionError("The actor died"))
        else:
            self._pools[group].submit(run)
        return answer


def clips(count: int, folder: Path | None = None) -> list[Clip]:
    """Clips of which nothing is read; their files need not be there."""
    return [Clip(index, (folder or Path("/nowhere")) / f"{index}.flac") for index in range(count)]


def queue_of(*given: Clip, closed: bool = True) -> ClipQueue:
    found = ClipQueue()
    found.put(given)
    if closed:
        found.close()
    return found


class SlowFakeEngine(FakeEngine):
    """Takes 20 ms for a clip, in an actor of its own."""

    def __init__(self, settings: EngineSettings, hardware: Hardware, log: Path) -> None:
        super().__init__(settings, hardware, log)
        self.delay, self.log = 0.02, log


class DyingEngine(SlowFakeEngine):
    """The one whose log has the number 1 dies at its fifth clip after the warm-up."""

    def transcribe(self, clips: Iterable[Clip]) -> Iterator[Text]:
        for number, text in enumerate(super().transcribe(clips)):
            if self.log.stem.endswith("1") and number == 5:
                raise EngineError("The engine died while it worked: out of memory")
            yield text


class EngineThatDoesNotStart(SlowFakeEngine):
    """Says why."""

    def __init__(self, settings: EngineSettings, hardware: Hardware, log: Path) -> None:
        super().__init__(settings, hardware, log)
        raise EngineError("The engine did not start: out of memory.", log)
