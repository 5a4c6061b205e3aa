"""Whether the engines of a fleet live and get on: each is asked again and again, and what it does not say counts.

Two limits: an engine that does not answer stands still, its process or its whole host; one that answers, and whose work
makes no progress, has an engine process or a GPU that hangs.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from whisperbench.engines.fleet_member import Signs
from whisperbench.engines.pulse import Pulse

SILENT_SECONDS = 30.0
"""An engine that does not answer for this long is lost; Ray itself waits for a minute."""
LOOK_SECONDS = 1.0


class Asked(Protocol):
    """What can be asked for signs of life."""

    def take(self) -> Future[Signs]: ...


M = TypeVar("M", bound=Asked)


class SignsOfLife(Generic[M]):
    """Asks engines, and says which of them are to be given up.

    `silent_seconds` is the limit on no answer, `stall_seconds` (0: none) the one on no progress; `pulse` is told of
    pauses.  Time in which this process itself stood still is nobody's silence.
    """

    def __init__(self, stall_seconds: float, pulse: Pulse) -> None:
        self.silent_seconds, self.stall_seconds = SILENT_SECONDS, stall_seconds
        self._pulse = pulse
        self._silent: dict[M, float] = {}  # whose answer is awaited, and for how long
        self._beats: dict[M, int] = {}
        self._pauses: dict[M, float] = {}  # who has work, and for how long it has made no progress
        self._answers: queue.SimpleQueue[tuple[M, Future[Signs]]] = queue.SimpleQueue()
        self._looked = time.monotonic()

    def ask(self, member: M) -> None:
        """Ask for texts; never twice at once, or the answer to the first would not be listened to."""
        if member not in self._silent:
            self._silent[member] = 0.0
            member.take().add_done_callback(lambda answer: self._answers.put((member, answer)))

    def arrived(self, wait_seconds: float = LOOK_SECONDS) -> Iterator[tuple[M, Future[Signs]]]:
        """Answers of engines that are not lost, all that are there, as soon as there is one."""
        with contextlib.suppress(queue.Empty):
            member, answer = self._answers.get(timeout=wait_seconds)
            while True:
                if self._silent.pop(member, None) is not None:
                    self._note(member, answer)
                    yield member, answer
                member, answer = self._answers.get_nowait()

    def given_up(self, working: Iterable[M]) -> list[tuple[M, TimeoutError]]:
        """Engines that are to be given up now, and why; of those that are `working` progress is expected.

        To be called every `LOOK_SECONDS`, after what has `arrived`.
        """
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, 2 * LOOK_SECONDS), now
        self._pauses = {member: self._pauses.get(member, 0.0) + passed for member in working}
        found = {}
        for member, pause in self._pauses.items():
            self._pulse.paused(pause)
            if self.stall_seconds and pause > self.stall_seconds:
                found[member] = f"no progress for {self.stall_seconds / 60:g} minutes, which is stall_minutes"
        for member in self._silent:
            self._silent[member] += passed
            if self._silent[member] > self.silent_seconds:
                found[member] = f"no sign of life for {self.silent_seconds:.0f} s"
        return [(member, TimeoutError(said)) for member, said in found.items()]

    def forget(self, member: M) -> None:
        """One that is lost: what it still answers is not listened to."""
        self._silent.pop(member, None)
        self._pauses.pop(member, None)

    def _note(self, member: M, answer: Future[Signs]) -> None:
        if answer.exception() is not None:
            return
        signs = answer.result()
        if member in self._pauses and (signs.texts or self._beats.get(member) != signs.beats):
            self._pauses[member] = 0.0
        self._beats[member] = signs.beats
