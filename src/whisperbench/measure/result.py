"""The result of one utterance: its transcript, its reference and its error counts."""

from __future__ import annotations

import dataclasses

from whisperbench.engines.base import Transcription


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Numbers of edits that turn a reference into a hypothesis, and the number of units of the reference.

    The unit is the word, or the character in the languages of `normalizer.CHARACTER_LANGUAGES`.
    """

    substitutions: int
    deletions: int
    insertions: int
    units: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def percent(self) -> float | None:
        return 100 * self.errors / self.units if self.units else None

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.units + other.units,
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
    def units(self) -> int | None:
        return self.counts.units if self.counts else None
