"""Transcripts become error counts: Whisper's text normaliser, jiwer's alignment, and totals over the corpus.

Empty texts follow one rule, jiwer's own where it does not refuse them.  An empty normalised reference
adds no reference words, and every word of its hypothesis is an insertion; an empty hypothesis deletes
every word of its reference; two empty texts add nothing.  Without any reference word there is no rate:
`wer` is None.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Sequence

from whisperbench.corpus.corpus import Utterance
from whisperbench.errors import CorpusError
from whisperbench.measure.alignment import align_words
from whisperbench.measure.timing import Transcript
from whisperbench.stats.bootstrap import Interval, bootstrap_interval

__all__ = ["ErrorCounts", "Interval", "Normalizer", "Score", "ScoredUtterance", "score"]


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Edits that turn a reference into a hypothesis; `words` (or characters) are the reference's."""

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


NOTHING = ErrorCounts(0, 0, 0, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class ScoredUtterance:
    """One utterance: both texts as they are and as they were compared, and their differences."""

    utt_id: str
    speaker: str | None
    seconds: float
    reference: str
    hypothesis: str
    reference_normalized: str
    hypothesis_normalized: str
    counts: ErrorCounts
    characters: ErrorCounts


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """A scored corpus; rates come from totals, never from a mean of rates.

    `interval` is the 95 % interval of the WER over speakers (over utterances where speakers are not
    known), None where there is nothing to estimate it from.
    """

    normalizer: str
    utterances: tuple[ScoredUtterance, ...]
    interval: Interval | None

    @property
    def words(self) -> ErrorCounts:
        return sum((utterance.counts for utterance in self.utterances), NOTHING)

    @property
    def characters(self) -> ErrorCounts:
        return sum((utterance.characters for utterance in self.utterances), NOTHING)

    @property
    def wer(self) -> float | None:
        return self.words.percent

    @property
    def cer(self) -> float | None:
        return self.characters.percent


class Normalizer:
    """Whisper's text normaliser: English has its own, every other language the basic one.

    `name` tells which one, and its version: a WER is compared with those of the same normaliser only.
    """

    def __init__(self, language: str) -> None:
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer

        kind, make = ("english", EnglishTextNormalizer) if language == "en" else ("basic", BasicTextNormalizer)
        self.name = f"whisper-{kind}/{importlib.metadata.version('whisper-normalizer')}"
        self._normalize: Callable[[str], str] = make()

    def __call__(self, text: str) -> str:
        """`text` as it is compared: words between single spaces, none around them.

        Raises:
            CorpusError: the text holds a number of more than 4,300 digits, which Python does not convert.
        """
        try:
            return " ".join(self._normalize(text).split())
        except (AssertionError, ValueError) as error:
            raise CorpusError(
                f"The text {text[:60]!a}… ({len(text):,} characters) cannot be normalised: it holds a number that is "
                "too long to be one. Correct it, or leave the utterance out."
            ) from error


def score(transcripts: Sequence[Transcript], language: str, seed: int) -> Score:
    """Count the word and character errors of each transcript (spaces are characters) and of all together.

    Raises:
        CorpusError: a transcript has no reference, or a text cannot be normalised; the utterance is named.
    """
    normalizer = Normalizer(language)
    utterances = tuple(_score_one(transcript, normalizer) for transcript in transcripts)
    # One utterance without a speaker makes speakers unusable: it would be a cluster beside theirs.
    speakers = [u.speaker for u in utterances if u.speaker is not None]
    known = len(speakers) == len(utterances)
    interval = bootstrap_interval(
        [u.counts.errors for u in utterances],
        [u.counts.words for u in utterances],
        speakers if known else [str(number) for number in range(len(utterances))],
        seed,
    )
    return Score(normalizer.name, utterances, interval)


def check_references(utterances: Sequence[Utterance], language: str) -> None:
    """Normalise every reference, so that one that cannot be is found before the clock starts.

    Raises:
        CorpusError: a reference cannot be normalised; the utterance is named.
    """
    normalizer = Normalizer(language)
    for utterance in utterances:
        _normalized(utterance.reference or "", normalizer, utterance.id)


def _score_one(transcript: Transcript, normalizer: Normalizer) -> ScoredUtterance:
    if transcript.reference is None:
        raise CorpusError(f"Utterance {transcript.utt_id} has no reference, so its errors cannot be counted.")
    reference, hypothesis = (
        _normalized(text, normalizer, transcript.utt_id) for text in (transcript.reference, transcript.hypothesis)
    )
    return ScoredUtterance(
        utt_id=transcript.utt_id,
        speaker=transcript.speaker,
        seconds=transcript.seconds,
        reference=transcript.reference,
        hypothesis=transcript.hypothesis,
        reference_normalized=reference,
        hypothesis_normalized=hypothesis,
        counts=_count(reference.split(), hypothesis.split()),
        characters=_count(list(reference), list(hypothesis)),
    )


def _normalized(text: str, normalizer: Normalizer, utt_id: str) -> str:
    try:
        return normalizer(text)
    except CorpusError as error:
        raise CorpusError(f"Utterance {utt_id}: {error}") from error


def _count(reference: list[str], hypothesis: list[str]) -> ErrorCounts:
    edits = align_words(reference, hypothesis)
    return ErrorCounts(edits.substitutions, edits.deletions, edits.insertions, len(reference))
