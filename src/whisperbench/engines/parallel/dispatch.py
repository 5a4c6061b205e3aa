"""Dynamic dispatch of utterances to engines; each result is accepted once, also when engines fail.

Small chunks go to the engine that holds the fewest utterances, so that all engines finish at nearly the same time and
a slow engine gets less work.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from whisperbench.corpus.corpus import Utterance

E = TypeVar("E")

MIN_CHUNK, MAX_CHUNK = 4, 16
"""Utterances per call: smaller chunks cost more calls, larger ones make the engines finish at different times."""


class Dispatcher(Generic[E]):
    """The utterances of one pass, assigned in their order; an engine holds at most `max_in_flight` of them."""

    def __init__(self, clips: Iterable[Utterance], engines: Sequence[E], max_in_flight: int) -> None:
        self._waiting = collections.deque(clips)
        self._unfinished = {clip.utt_id: clip for clip in self._waiting}
        self._held: dict[E, set[str]] = {engine: set() for engine in engines}
        self._expecting_more: set[E] = set()  # engines that may wait for more to fill a batch
        self._max_in_flight = max_in_flight
        self._chunk = min(MAX_CHUNK, max(MIN_CHUNK, max_in_flight // MAX_CHUNK))

    @property
    def unfinished(self) -> int:
        """Number of utterances without a result."""
        return len(self._unfinished)

    def held(self, engine: E) -> int:
        """Number of utterances that an engine has not finished; 0 for an engine that failed."""
        return len(self._held.get(engine, ()))

    def assign(self) -> list[tuple[E, tuple[Utterance, ...], bool]]:
        """Chunks to submit now as (engine, utterances, more); empty while every engine holds enough.

        `more` is false once per engine, when no utterances are left and the engine need not wait for a full batch.
        """
        found: list[tuple[E, tuple[Utterance, ...], bool]] = []
        while self._waiting and self._held:
            engine = min(self._held, key=self.held)
            count = min(self._chunk, -(-len(self._waiting) // len(self._held)))
            if self.held(engine) and self.held(engine) + count > self._max_in_flight:
                break
            clips = tuple(self._waiting.popleft() for _ in range(count))
            self._held[engine].update(clip.utt_id for clip in clips)
            self._expecting_more.add(engine)
            found.append((engine, clips, True))
        if not self._waiting:
            found += [(engine, (), False) for engine in self._held if engine in self._expecting_more]
            self._expecting_more.clear()
        return found

    def accept(self, engine: E, utt_id: str) -> bool:
        """Whether to use an engine's result, which is true once, and only if the engine has not failed."""
        if utt_id not in self._held.get(engine, ()):
            return False
        self._held[engine].remove(utt_id)
        del self._unfinished[utt_id]
        return True

    def remove(self, engine: E) -> None:
        """Remove a failed engine; the utterances that it holds are assigned next."""
        held = self._held.pop(engine, set())
        self._expecting_more.discard(engine)
        self._waiting.extendleft(clip for utt_id, clip in reversed(self._unfinished.items()) if utt_id in held)
