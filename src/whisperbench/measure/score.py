"""Word and character errors of normalised transcripts.

The unit of errors is the word, or the character in the languages of `normalizer.CHARACTER_LANGUAGES`.  With an empty
normalised reference, every unit of the hypothesis is an insertion; with an empty hypothesis, every unit of the
reference is a deletion.  A corpus whose references are all empty has no error rate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from rapidfuzz.distance import Levenshtein

from whisperbench.corpus.corpus import Utterance
from whisperbench.errors import CorpusError
from whisperbench.measure.alignment import align_words
from whisperbench.measure.normalizer import Normalizer, normalizer_of
from whisperbench.measure.result import NO_ERRORS, ErrorCounts, UtteranceResult
from whisperbench.stats.clusters import Interval, rate_interval


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """A scored corpus; rates come from totals, never from a mean of rates.

    `interval` is the 95 % interval of `error_rate` over speakers, or None if `rate_interval` has none.
    """

    normalizer: Normalizer
    results: tuple[UtteranceResult, ...]
    interval: Interval | None

    @property
    def counts(self) -> ErrorCounts:
        return sum((result.counts or NO_ERRORS for result in self.results), NO_ERRORS)

    @property
    def metric(self) -> Literal["wer", "cer"]:
        """The metric that runs are ranked by: the CER where the unit is the character."""
        return "cer" if self.normalizer.unit == "character" else "wer"

    @property
    def error_rate(self) -> float | None:
        """Errors in percent of the units of all references."""
        return self.counts.percent

    @property
    def invented_per_minute(self) -> float | None:
        """Units in the transcripts of utterances with an empty reference, per minute of their audio."""
        return units_per_minute([each for each in self.results if each.counts and not each.units], self.normalizer)

    @property
    def wer(self) -> float | None:
        return self.error_rate if self.metric == "wer" else None

    @property
    def cer(self) -> float | None:
        characters = sum(result.characters or 0 for result in self.results)
        errors = sum(result.character_errors or 0 for result in self.results)
        return 100 * errors / characters if characters else None


def score(results: Sequence[UtteranceResult], language: str) -> Score:
    """Count the errors of each result, and its errors in characters (including the spaces between words).

    Raises:
        CorpusError: an utterance has no reference, or a transcript cannot be normalised; the message names it.
    """
    normalizer = normalizer_of(language)
    scored = tuple(_counted(result, normalizer) for result in results)
    interval = rate_interval(
        [result.errors or 0 for result in scored],
        [result.units or 0 for result in scored],
        [result.speaker for result in scored],
    )
    return Score(normalizer, scored, interval)


def units_per_minute(results: Sequence[UtteranceResult], normalizer: Normalizer) -> float | None:
    """Words or characters of the normalised transcripts per minute of audio; None without audio.

    Raises:
        CorpusError: a transcript cannot be normalised; the message names the utterance.
    """
    minutes = sum(result.seconds for result in results) / 60
    units = sum(len(_normalized(result.hypothesis, normalizer, result.utt_id).split()) for result in results)
    return units / minutes if minutes else None


def check_references(utterances: Sequence[Utterance], language: str) -> None:
    """Normalise every reference, so that errors are reported before the measurement.

    Raises:
        CorpusError: a reference cannot be normalised; the message names the utterance.
    """
    for utterance in utterances:
        _normalized(utterance.reference or "", normalizer_of(language), utterance.utt_id)


def _counted(result: UtteranceResult, normalizer: Normalizer) -> UtteranceResult:
    if result.reference is None:
        raise CorpusError(f"Utterance {result.utt_id} has no reference, so its errors cannot be counted.")
    reference, hypothesis = (
        _normalized(text, normalizer, result.utt_id) for text in (result.reference, result.hypothesis)
    )
    units = reference.split(), hypothesis.split()
    characters = units if normalizer.unit == "character" else (reference, hypothesis)
    edits = align_words(*units)
    return dataclasses.replace(
        result,
        counts=ErrorCounts(edits.substitutions, edits.deletions, edits.insertions, len(units[0])),
        character_errors=Levenshtein.distance(*characters),
        characters=len(characters[0]),
    )


def _normalized(text: str, normalizer: Normalizer, utt_id: str) -> str:
    try:
        return normalizer(text)
    except CorpusError as error:
        raise CorpusError(f"Utterance {utt_id}: {error}") from error
