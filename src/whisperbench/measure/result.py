"""The result of one utterance: its transcript, its reference and its error counts."""

from __future__ import annotations

import dataclasses

from whisperbench.engines.base import Transcription


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Word edits that turn a reference into a hypothesis; `words` are the reference's."""

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
    """A transcription beside its reference: what is journalled, scored, stored, and read back by compare.

    `finished_seconds` is the time since its pass began.  `score` sets the counts, which are None until then and where
    the corpus has no references; `characters` are the reference's.
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
