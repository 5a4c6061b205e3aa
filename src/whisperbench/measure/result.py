"""The result of one utterance: its transcript, its reference and its error counts."""

from __future__ import annotations

import dataclasses

from whisperbench.engines.base import Transcription


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Numbers of word edits that turn a reference into a hypothesis; `words` is the number of reference words."""

    substitutions: int
    deletions: int
    insertions: int
    words: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def percent(self) -> float | None:
        return 100 * self.errors / self.words if self.words else None

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.words + other.words,
        )


NO_ERRORS = ErrorCounts(0, 0, 0, 0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UtteranceResult(Transcription):
    """A transcription with its reference, as it is stored and compared.

    `finished_seconds` is the time since the start of the pass.  `score` sets `counts`, `character_errors` and
    `characters` (the number in the normalised reference); without references they stay None.
    """

    reference: str | None
    speaker: str | None
    repeat: int = 0
    finished_seconds: float | None = None
    counts: ErrorCounts | None = None
    character_errors: int | None = None
    characters: int | None = None

    @property
    def errors(self) -> int | None:
        return self.counts.errors if self.counts else None

    @property
    def words(self) -> int | None:
        return self.counts.words if self.counts else None
