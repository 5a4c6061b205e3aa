"""Word and character error rates, on normalised texts, from totals."""

from __future__ import annotations

import time

import jiwer
import pytest

from whisperbench.errors import CorpusError
from whisperbench.measure.result import ErrorCounts, UtteranceResult
from whisperbench.measure.score import Score, score


def transcript(
    reference: str | None, hypothesis: str, utt_id: str = "u", speaker: str | None = None
) -> UtteranceResult:
    return UtteranceResult(
        utt_id=utt_id,
        speaker=speaker,
        seconds=1.0,
        reference=reference,
        hypothesis=hypothesis,
        tokens=1,
        windows=1,
    )


def score_pairs(*pairs: tuple[str, str], speakers: str = "", language: str = "en") -> Score:
    """The score of (reference, hypothesis) pairs; `speakers` has one letter each."""
    known = speakers or [None] * len(pairs)
    transcripts = [transcript(*pair, f"u{i}", who) for i, (pair, who) in enumerate(zip(pairs, known, strict=True))]
    return score(transcripts, language)


def test_counts_worked_by_hand() -> None:
    """quick→thick is substituted, jumped deleted, today inserted: 3 errors in 7 words; sat inserted: 1 in 2."""
    first, second = score_pairs(
        ("the quick brown fox jumped over it", "the thick brown fox over it today"), ("the cat", "the cat sat")
    ).results
    assert first.counts == ErrorCounts(substitutions=1, deletions=1, insertions=1, units=7)
    assert second.counts == ErrorCounts(substitutions=0, deletions=0, insertions=1, units=2)
    assert (first.errors, first.units, second.counts.percent) == (3, 7, 50)


def test_rates_come_from_totals() -> None:
    """1 error in 1 word and 0 in 9 are 10 %, not the mean of 50 %; an empty reference adds errors and no words."""
    assert score_pairs(("yes", "no"), ("a b c d e f g h i", "a b c d e f g h i")).wer == pytest.approx(10)
    assert score_pairs(("", "oh dear"), ("a b c d", "a b c d")).wer == pytest.approx(50)


def test_spaces_are_characters() -> None:
    """`ab cd` has 5 characters; without its space it has one error."""
    (found,) = score_pairs(("ab cd", "abcd")).results
    assert (found.character_errors, found.characters) == (1, 5)
    assert score_pairs(("ab cd", "abcd")).cer == pytest.approx(20)


def test_texts_are_normalised_and_kept() -> None:
    """Case, punctuation, contractions, numbers and British spelling are no errors; the raw texts stay."""
    result = score_pairs(("MISTER SMITH DID NOT SEE TWENTY ONE COLOURS", "Mr. Smith didn't see 21 colors."))
    (utterance,) = result.results
    assert result.wer == 0
    assert utterance.hypothesis == "Mr. Smith didn't see 21 colors."
    assert result.normalizer(utterance.hypothesis) == "mister smith did not see 21 colors"


def test_characters_are_the_unit_without_spaces_between_words() -> None:
    """One wrong character of 14 is a CER of 1/14 and no WER; spaces and punctuation do not count."""
    result = score_pairs(("甚至出现交易几乎停滞的情况", "甚至 出现交易几乎停止的情况。"), ("对", "对"), language="zh")
    assert result.counts == ErrorCounts(substitutions=1, deletions=0, insertions=0, units=14)
    assert (result.metric, result.wer, result.cer) == ("cer", None, pytest.approx(100 / 14))
    assert result.error_rate == result.cer
    first = result.results[0]
    assert (first.character_errors, first.characters) == (first.errors, first.units) == (1, 13)


def test_invented_words_are_counted_per_minute_without_speech() -> None:
    """3 words in 2 s of audio without speech are 90 a minute; utterances with reference words do not count."""
    assert score_pairs(("", "Thank you."), ("um", "oh"), ("a b", "c d e")).invented_per_minute == pytest.approx(90)
    assert score_pairs(("", ""), ("", "")).invented_per_minute == 0
    assert score_pairs(("a", "b")).invented_per_minute is None
    assert score_pairs(("", "谢谢"), language="zh").invented_per_minute == pytest.approx(120)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("", "two words", ErrorCounts(0, 0, 2, 0)),
        ("um, hmm", "two words", ErrorCounts(0, 0, 2, 0)),
        ("two words", "", ErrorCounts(0, 2, 0, 2)),
        ("two words", "[music] um", ErrorCounts(0, 2, 0, 2)),
        ("", "", ErrorCounts(0, 0, 0, 0)),
    ],
)
def test_empty_texts(reference: str, hypothesis: str, counts: ErrorCounts) -> None:
    """Words against nothing are insertions, nothing against words are deletions, also where normalising empties."""
    assert score_pairs((reference, hypothesis)).counts == counts


def test_no_reference_word_no_rate() -> None:
    """A corpus without reference words, or without utterances, has no WER, no CER and no interval."""
    for result in (score_pairs(("", "some words"), ("", "")), score_pairs()):
        assert (result.wer, result.cer, result.interval) == (None, None, None)


def test_an_utterance_that_cannot_be_scored_is_named() -> None:
    """It has no reference, or a number of 5,000 digits, which Python does not convert."""
    with pytest.raises(CorpusError, match="84-121123-0000 has no reference"):
        score([transcript(None, "words", utt_id="84-121123-0000")], "en")
    with pytest.raises(CorpusError, match=r"Utterance u0: .* \(5,000 characters\) cannot be normalised"):
        score_pairs(("9" * 5_000, "nine"))


def test_the_interval_is_over_speakers() -> None:
    """Utterances of one speaker are correlated, so without a speaker no interval is known."""
    pairs = [("a b c d e", "a b c d e"), ("a b c d e", "a x c y z")] * 6
    found = score_pairs(*pairs, speakers="abcdefghijkl").interval
    assert found is not None
    assert found.low < 30 < found.high
    assert score_pairs(*pairs).interval is None


def test_library_sentences_equal_jiwer() -> None:
    """Rates over several utterances are those of jiwer's own `wer` and `cer`."""
    references = ["the cat sat on the mat", "hello there", "a much longer sentence than the others were"]
    hypotheses = ["the cat sat mat", "hello hello there", "much longer sentences than others were"]
    result = score_pairs(*zip(references, hypotheses, strict=True))
    assert result.wer == pytest.approx(100 * jiwer.wer(references, hypotheses))
    assert result.cer == pytest.approx(100 * jiwer.cer(references, hypotheses))


def test_long_texts_do_not_stop_it() -> None:
    """A loop of 50,000 words against 20 of reference, and 2,620 utterances of 20 words, take seconds."""
    words = "it was a bright cold day in april and the clocks were striking thirteen as winston smith slipped through"
    pairs = [(f"{words} {number}", f"{words.replace('cold', 'old')} {number}") for number in range(2_620)]
    started = time.process_time()
    result = score_pairs(("the quick brown fox " * 5, "thank you " * 25_000), *pairs)
    assert time.process_time() - started < 20
    assert result.counts == ErrorCounts(20 + 2_620, 0, 49_980, 20 + 2_620 * 20)
