"""Which engine works on which clip: each clip's text is taken once, whichever engine is lost.

A few at a time, in the order given, to the engine that holds least.  So no engine hoards what another could do at the
end, and a slow one just gets less.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from whisperbench.engines.seam import Clip

E = TypeVar("E")

FEWEST, MOST = 4, 16
"""Clips that are handed over at once: fewer cost calls, more make the ends of the engines differ."""


@dataclasses.dataclass(frozen=True, slots=True)
class Handed(Generic[E]):
    """Clips for an engine; `more` may follow, else it need not wait for others to fill a batch."""

    engine: E
    clips: tuple[Clip, ...]
    more: bool


class Dispatch(Generic[E]):
    """The clips of one pass on their way through engines.

    `clips` are in the order in which they are handed out; an engine holds at most `window` of them.
    """

    def __init__(self, clips: Iterable[Clip], engines: Sequence[E], window: int) -> None:
        self._waiting = collections.deque(clips)
        self._clips = {clip.index: clip for clip in self._waiting}
        self._held: dict[E, set[int]] = {engine: set() for engine in engines}
        self._told_more: set[E] = set()  # engines that wait for others before they work off what they have
        self._window, self._chunk = window, min(MOST, max(FEWEST, window // MOST))

    @property
    def unanswered(self) -> int:
        return len(self._clips)

    @property
    def engines(self) -> list[E]:
        """Those that have not been lost."""
        return list(self._held)

    def holds(self, engine: E) -> int:
        """How many clips an engine has and has not answered; 0 for one that was lost."""
        return len(self._held.get(engine, ()))

    def hand_out(self) -> list[Handed[E]]:
        """What is to be given to engines now; nothing while all of them hold enough."""
        found: list[Handed[E]] = []
        while self._waiting and self._held:
            engine = min(self._held, key=self.holds)
            count = min(self._chunk, -(-len(self._waiting) // len(self._held)))
            if self.holds(engine) and self.holds(engine) + count > self._window:
                break
            clips = tuple(self._waiting.popleft() for _ in range(count))
            self._held[engine].update(clip.index for clip in clips)
            self._told_more.add(engine)
            found.append(Handed(engine, clips, more=True))
        if not self._waiting:
            found += [Handed(engine, (), more=False) for engine in self._held if engine in self._told_more]
            self._told_more.clear()
        return found

    def answered(self, engine: E, index: int) -> bool:
        """Note an engine's text of a clip; whether it is to be taken: not from one that was lost, and not twice."""
        if index not in self._held.get(engine, ()):
            return False
        self._held[engine].remove(index)
        del self._clips[index]
        return True

    def lost(self, engine: E) -> None:
        """Take back what an engine holds, to be given to others first."""
        held = self._held.pop(engine, set())
        self._told_more.discard(engine)
        self._waiting.extendleft(self._clips[index] for index in sorted(held, reverse=True))
