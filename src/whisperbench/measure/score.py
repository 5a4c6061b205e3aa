"""Word and character errors of normalised transcripts.

With an empty normalised reference, every word of the hypothesis is an insertion; with an empty hypothesis, every word
of the reference is a deletion.  The WER of a corpus without reference words is None.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
from collections.abc import Callable, Sequence

from rapidfuzz.distance import Levenshtein

from whisperbench.corpus.corpus import Utterance
from whisperbench.errors import CorpusError
from whisperbench.measure.alignment import align_words
from whisperbench.measure.result import NO_ERRORS, ErrorCounts, UtteranceResult
from whisperbench.stats.clusters import Interval
from whisperbench.stats.interval import rate_interval

MAX_REMEMBERED = 1 << 14
"""Number of normalised transcripts kept in memory: references and hypotheses of 8,000 utterances."""


class Normalizer:
    """Whisper's normaliser: the English one for `en`, the basic one for other languages.

    `name` holds kind and version, because only WERs from the same normaliser are comparable.  Results are cached, so
    that a reference is normalised only once.
    """

    def __init__(self, language: str) -> None:
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer

        kind, make = ("english", EnglishTextNormalizer) if language == "en" else ("basic", BasicTextNormalizer)
        self.name = f"whisper-{kind}/{importlib.metadata.version('whisper-normalizer')}"
        self._normalize: Callable[[str], str] = functools.lru_cache(MAX_REMEMBERED)(make())

    def __call__(self, text: str) -> str:
        """The normalised words of `text`, joined by single spaces.

        Raises:
            CorpusError: the text contains a number of more than 4,300 digits, which Python does not convert.
        """
        try:
            return " ".join(self._normalize(text).split())
        except (AssertionError, ValueError) as error:
            raise CorpusError(
                f"The transcript {text[:60]!a}… ({len(text):,} characters) cannot be normalised, because it contains a "
                "number with too many digits. Correct the transcript, or remove the utterance."
            ) from error


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """A scored corpus; rates come from totals, never from a mean of rates.

    `interval` is the 95 % interval of the WER over speakers, or None if `rate_interval` has none.
    """

    normalizer: Normalizer
    results: tuple[UtteranceResult, ...]
    interval: Interval | None

    @property
    def words(self) -> ErrorCounts:
        return sum((result.counts or NO_ERRORS for result in self.results), NO_ERRORS)

    @property
    def wer(self) -> float | None:
        return self.words.percent

    @property
    def cer(self) -> float | None:
        characters = sum(result.characters or 0 for result in self.results)
        errors = sum(result.character_errors or 0 for result in self.results)
        return 100 * errors / characters if characters else None


@functools.cache
def normalizer_of(language: str) -> Normalizer:
    """The normaliser of a language; one instance, so that its cache is shared."""
    return Normalizer(language)


def score(results: Sequence[UtteranceResult], language: str) -> Score:
    """Count the word errors and character errors (including spaces) of each result.

    Raises:
        CorpusError: an utterance has no reference, or a transcript cannot be normalised; the message names it.
    """
    normalizer = normalizer_of(language)
    scored = tuple(_counted(result, normalizer) for result in results)
    interval = rate_interval(
        [result.errors or 0 for result in scored],
        [result.words or 0 for result in scored],
        [result.speaker for result in scored],
    )
    return Score(normalizer, scored, interval)


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
    words = reference.split()
    edits = align_words(words, hypothesis.split())
    return dataclasses.replace(
        result,
        counts=ErrorCounts(edits.substitutions, edits.deletions, edits.insertions, len(words)),
        character_errors=Levenshtein.distance(reference, hypothesis),
        characters=len(reference),
    )


def _normalized(text: str, normalizer: Normalizer, utt_id: str) -> str:
    try:
        return normalizer(text)
    except CorpusError as error:
        raise CorpusError(f"Utterance {utt_id}: {error}") from error
