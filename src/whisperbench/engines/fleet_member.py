"""One engine of a fleet where it runs: in a process of its own, told what to do by the fleet's calls.

The calls come from several threads: `put` and `take` while the engine works, everything else while it does not.
Nothing here knows Ray.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import platform
import queue
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from whisperbench.engines.feed import ClipQueue
from whisperbench.engines.hardware import Hardware, energy_by_gpu
from whisperbench.engines.pulse import Pulse
from whisperbench.engines.seam import Clip, Engine, EngineFacts, StartEngine, Text
from whisperbench.engines.settings import EngineSettings
from whisperbench.inputs.audio import AudioSource
from whisperbench.supervise.orphans import kill, no_orphans

ANSWER_SECONDS = 5.0
"""An engine with nothing to hand out says so after this time: a sign of life."""
READ_BYTES = 1 << 20
GATHER_SECONDS = 0.05
"""An answer waits so long for more texts: at hundreds of them a second each would cost two processes a call."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where an engine is to run: variables and cores of its process (no cores: all)."""

    name: str
    environment: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    cores: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class MemberFacts:
    """What a started engine says of itself, and which processes it is: when each was started, by its id.

    Engines with the same `device` on a host share a GPU; without one each has its own cores.
    """

    host: str
    device: str
    processes: Mapping[int, float]
    engine: EngineFacts


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """Counters of one engine's process and GPUs: CPU seconds of the client, Wh by GPU (a GPU may have two engines)."""

    cpu_seconds: float
    energy_wh: Mapping[str, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Signs:
    """What an engine has to say when it is asked: its new texts, and a number that grows while its work goes on."""

    texts: tuple[Text, ...]
    beats: int


class FleetMember:
    """An engine, a thread that drives it, and what the fleet asks of them."""

    def __init__(self, place: Place) -> None:
        self._place, self.answer_seconds = place, ANSWER_SECONDS
        self._stack = contextlib.ExitStack()
        self._engine: Engine | None = None
        self._pulse = Pulse()
        self._passes: queue.SimpleQueue[ClipQueue] = queue.SimpleQueue()
        self._texts: queue.SimpleQueue[Text | BaseException] = queue.SimpleQueue()
        self._clips: ClipQueue | None = None
        self._put = self._taken = 0  # clips, and texts of them

    def ready(self) -> tuple[str, Mapping[int, float]]:
        """This process's host, and when it was started by its id; answered as soon as it is there."""
        return platform.node(), _started({os.getpid()})

    def start(self, start: StartEngine, settings: EngineSettings, hardware: Hardware, log: Path) -> MemberFacts:
        """Start the engine; with the end of this process its processes end too.

        Raises:
            EngineError: it does not start.
        """
        for name, value in self._place.environment.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        if self._place.cores:
            _stay_on(self._place.cores)
        self._stack.enter_context(no_orphans())
        engine = start(settings, hardware, log)
        self.drive(engine)
        device = (os.environ.get("CUDA_VISIBLE_DEVICES") if hardware.has_gpu else None) or self._place.name
        return MemberFacts(platform.node(), device, _started({os.getpid(), *engine.pids()}), engine.facts)

    def drive(self, engine: Engine) -> None:
        """From now on clips that are put go through this engine."""
        self._engine = engine
        threading.Thread(target=self._work, name="engine", daemon=True).start()

    def put(self, clips: Sequence[Clip], more: bool) -> None:
        """Clips to transcribe; without `more` what is there is worked off without waiting for others."""
        self._put += len(clips)
        if self._clips is None or self._clips.closed:
            self._clips = ClipQueue()
            self._passes.put(self._clips)
        self._clips.put(clips)
        if not more:
            self._clips.close()

    def take(self) -> Signs:
        """The texts that are there soon after the first one, or all that there will be; none after `answer_seconds`.

        Raises:
            AudioError, EngineError: as the engine did.
        """
        found: list[Text] = []
        with contextlib.suppress(queue.Empty):
            found.append(_text(self._texts.get(timeout=self.answer_seconds)))
            until = time.monotonic() + GATHER_SECONDS
            while self._taken + len(found) < self._put:
                found.append(_text(self._texts.get(timeout=max(0.0, until - time.monotonic()))))
        self._taken += len(found)
        own = self.engine.pulse  # of one that works long between two texts
        return Signs(tuple(found), self._pulse.beats + (own.beats if own else 0))

    def seconds_alone(self, clips: Iterable[Clip]) -> float:
        """Transcribe clips with nobody else's help, their texts thrown away; how long that took."""
        started = time.perf_counter()
        for _ in self.engine.transcribe(self._pulse.of(clips)):
            self._pulse.beat()
        return time.perf_counter() - started

    def usage(self) -> Usage:
        return Usage(time.process_time(), energy_by_gpu(os.environ.get("CUDA_VISIBLE_DEVICES")))

    def digest(self, paths: Sequence[Path], clips: Sequence[AudioSource]) -> str:
        """One digest of files and clips as this host has them, to be compared with the driver's."""
        return content_digest(paths, clips)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._stack.close()

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise RuntimeError(f"{self._place.name} was not started")
        return self._engine

    def _work(self) -> None:
        try:
            while True:
                for text in self.engine.transcribe(self._passes.get()):
                    self._pulse.beat()
                    self._texts.put(text)
        except BaseException as error:  # handed to whoever takes: nobody looks into this thread
            self._texts.put(error)


def kill_processes(started: Mapping[int, float]) -> None:
    """SIGKILL to those that still are what they were, and to what they have started."""
    import psutil

    still = {pid: _started({pid}).get(pid) for pid in started}
    with contextlib.suppress(psutil.Error):
        kill(psutil.Process(pid) for pid, when in started.items() if still[pid] == when)


def _stay_on(cores: Iterable[int]) -> None:
    """Every thread of this process, and all that they will start; Linux sets one thread at a time."""
    import psutil

    for thread in psutil.Process().threads():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            os.sched_setaffinity(thread.id, cores)


def _started(pids: Iterable[int]) -> dict[int, float]:
    import psutil

    found = {}
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found[pid] = psutil.Process(pid).create_time()
    return found


def _text(found: Text | BaseException) -> Text:
    if isinstance(found, BaseException):
        raise found
    return found


def content_digest(paths: Iterable[Path], clips: Iterable[AudioSource] = ()) -> str:
    """32 hexadecimal digits of what files and clips hold; where they lie does not matter."""
    digest = hashlib.sha256()
    try:
        for source in (*paths, *clips):
            with source.open("rb") as file:
                while content := file.read(READ_BYTES):
                    digest.update(content)
            digest.update(b"|")
    except OSError as error:
        return f"missing: {error}"
    return digest.hexdigest()[:32]
