"""Verdicts on differences of error rates: worked examples, and their error rates in simulations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from whisperbench.stats.paired import PairedErrors, outcome_of

SPEAKERS = 40
Floats = npt.NDArray[np.float64]


def names(count: int) -> list[str | None]:
    return [f"s{number:02d}" for number in range(count)]


def corpus(generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Expected errors and words of each speaker: rates differ between speakers, 5 % on average, 40,000 words."""
    words = generator.integers(400, 1_600, size=SPEAKERS).astype(np.float64)
    return 0.05 * words * generator.lognormal(-0.245, 0.7, size=SPEAKERS), words


def share_called_different(systems: int, boards: int, own: float, *, named: bool) -> float:
    """The share of boards of equal systems on which any row is called worse or better than the reference.

    `own` is the share of a speaker's errors that a system makes alone; the others are made by all systems.
    """
    generator, different = np.random.default_rng(12), 0
    for _ in range(boards):
        expected, words = corpus(generator)
        common = generator.poisson((1 - own) * expected)
        errors = common + generator.poisson(own * expected, size=(systems, SPEAKERS))
        board = PairedErrors.of(list(errors), words, names(SPEAKERS))
        reference = 0 if named else int(board.errors.sum(axis=1).argmin())
        comparisons = systems - 1 if named else board.all_pairs
        outcomes = {
            board.difference(row, reference, margin=0.2, comparisons=comparisons).outcome
            for row in range(systems)
            if row != reference
        }
        different += not outcomes.isdisjoint({"worse", "better"})
    return different / boards


@pytest.mark.parametrize(("systems", "boards"), [(2, 2_000), (8, 800), (32, 300)])
@pytest.mark.parametrize("own", [1.0, 0.1])
@pytest.mark.parametrize("named", [True, False])
def test_a_board_of_equal_systems_is_level(systems: int, boards: int, own: float, named: bool) -> None:
    """On at most 6 % of boards anything is called different, against a named reference and against the best row."""
    assert share_called_different(systems, boards, own, named=named) <= 0.06


@pytest.mark.parametrize("margin", [0.2, 0.5])
def test_a_system_at_the_margin_is_not_called_the_same(margin: float) -> None:
    """It is worse by exactly the margin: “same” or “not worse” in at most 3.5 % of cases; the level is 2.5 %."""
    generator, kept, boards = np.random.default_rng(13), 0, 2_000
    for _ in range(boards):
        expected, words = corpus(generator)
        common = generator.poisson(0.9 * expected)
        a, b = (common + generator.poisson(0.1 * expected + share * words) for share in (0, margin / 100))
        found = PairedErrors.of([a, b], words, names(SPEAKERS)).difference(1, 0, margin=margin)
        kept += found.outcome in ("same", "not worse")
    assert kept / boards <= 0.035


def test_equal_systems_are_called_the_same_with_the_words_needed() -> None:
    """At the number of words that an undecided comparison asks for, about 80 % are decided."""
    generator, decided, needed, boards = np.random.default_rng(14), 0, [], 500
    for _ in range(boards):
        expected, words = corpus(generator)
        common = generator.poisson(0.95 * expected)
        a, b = (common + generator.poisson(0.05 * expected) for _ in range(2))
        found = PairedErrors.of([a, b], words, names(SPEAKERS)).difference(1, 0, margin=0.115)
        decided += found.outcome == "same"
        needed.append((found.words_needed or 0) / words.sum())
    assert 0.65 <= decided / boards <= 0.95
    assert 0.6 <= np.median(needed) <= 1.4


def test_a_difference_worked_out_by_hand() -> None:
    """Ten speakers with 1,000 words each; the second system has one error more for half of them."""
    a, b = [10] * 10, [11, 10] * 5
    found = PairedErrors.of([a, b], [1_000] * 10, names(10)).difference(1, 0, margin=0.2)
    error = np.sqrt(10 * 0.25 / 0.9 + 2) / 10_000
    assert found.difference == pytest.approx(0.05)
    assert found.high - found.difference == pytest.approx(100 * 2.26216 * error, rel=1e-5)
    assert (found.outcome, found.scope) == ("same", "10 speakers")
    mirrored = PairedErrors.of([b, a], [1_000] * 10, names(10)).difference(1, 0, margin=0.2)
    assert (mirrored.difference, mirrored.low) == (pytest.approx(-0.05), pytest.approx(-found.high))


@pytest.mark.parametrize(
    ("low", "high", "provable", "outcome"),
    [
        (-0.1, 0.1, True, "same"),
        (0.01, 0.2, True, "same"),
        (0.01, 0.3, True, "worse"),
        (-0.3, -0.01, True, "better"),
        (-0.3, 0.1, True, "not worse"),
        (-0.1, 0.3, True, "undecided"),
        (-0.1, 0.1, False, "undecided"),
        (0.01, 0.1, False, "worse"),
    ],
)
def test_outcomes(low: float, high: float, provable: bool, outcome: str) -> None:
    """With a margin of 0.2; a set that is too small proves neither “same” nor “not worse”."""
    assert outcome_of(low, high, 0.2, provable=provable) == outcome


def test_a_margin_of_less_than_ten_errors_is_not_proved() -> None:
    """0.2 points of 1,000 words are two errors; equal transcripts are undecided, and the words needed are stated."""
    found = PairedErrors.of([[1] * 20, [1] * 20], [50] * 20, names(20)).difference(1, 0, margin=0.2)
    assert (found.outcome, found.words_needed) == ("undecided", 6_000)
    assert found.statement() == "undecided within 0.2 points; if they are equal, about 6,000 words show it"


@pytest.mark.parametrize(
    ("speakers", "scope"),
    [
        (names(10) * 2, "10 speakers"),
        (names(3) * 6 + names(2), "20 utterances of these 3 speakers alone"),
        (["s"] * 20, "20 utterances of this speaker alone"),
        ([*names(19), None], "20 utterances, speakers unknown"),
    ],
)
def test_clusters_are_speakers_from_ten_on(speakers: list[str | None], scope: str) -> None:
    """With fewer or unknown speakers, utterances are the clusters, and the scope states it."""
    assert PairedErrors.of([[1] * 20, [0] * 20], [50] * 20, speakers).scope == scope


def test_statements() -> None:
    """The verdict with its figures; limits that are infinite are not printed."""
    found = PairedErrors.of([[1] * 20, [21] * 20], [1_000] * 20, names(20)).difference(1, 0, margin=0.2)
    assert found.statement() == f"worse by {found.low:.2f} to {found.high:.2f} points"
    assert found.figures == f"difference +2.00, {found.low:+.2f} to {found.high:+.2f} points (95 %, over 20 speakers)"
    single = PairedErrors.of([[1], [2]], [50], ["s"]).difference(1, 0, margin=0.2)
    assert (single.outcome, single.limits, single.words_needed) == ("undecided", "", None)
    assert single.statement() == "undecided within 0.2 points"


def test_shapes_and_words_are_checked() -> None:
    """Different lengths are refused, not broadcast; without reference words no rates exist."""
    with pytest.raises(ValueError, match="do not match"):
        PairedErrors.of([[1], [1]], [10, 10], ["a", "b"])
    with pytest.raises(ValueError, match="0 reference words"):
        PairedErrors.of([[1, 2], [0, 0]], [0, 0], ["a", "b"])
