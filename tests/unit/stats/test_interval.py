"""The interval of one error rate, and its coverage in simulations."""

from __future__ import annotations

import numpy as np
import pytest

from whisperbench.stats.clusters import Interval, degrees_of_freedom, rate_interval, share_at_most, two_sided_t


def names(count: int) -> list[str | None]:
    return [f"s{number}" for number in range(count)]


@pytest.mark.parametrize(("speakers", "sigma", "least"), [(6, 0.4, 0.92), (20, 0.4, 0.93), (40, 0.5, 0.93)])
def test_intervals_over_speakers_cover(speakers: int, sigma: float, least: float) -> None:
    """Speakers have unequal error rates and unequal numbers of words; the level is 95 %."""
    generator, covered, boards = np.random.default_rng(11), 0, 2_000
    for _ in range(boards):
        words = 20 * generator.integers(20, 80, size=speakers)
        rates = 0.03 * generator.lognormal(-(sigma**2) / 2, sigma, size=speakers)
        interval = rate_interval(generator.poisson(rates * words), words, names(speakers))
        covered += interval is not None and interval.low <= 3 <= interval.high
    assert least <= covered / boards <= 0.97


def test_a_known_example() -> None:
    """With two speakers the limits would be farther than a factor of ten; with four they are computed by hand."""
    assert rate_interval([10, 30], [100, 100], ["a", "b"]) is None
    found = rate_interval([20, 22, 18, 20], [100] * 4, names(4))
    error = np.sqrt((0 + 4 + 4 + 0) / 0.75 + 1) / 400
    half = 3.1824 * error / 0.2  # t of three degrees of freedom
    assert found == Interval(pytest.approx(20 * np.exp(-half), rel=1e-4), pytest.approx(20 * np.exp(half), rel=1e-4))


@pytest.mark.parametrize(
    ("errors", "words", "speakers"),
    [
        ([1, 2], [10, 10], ["a", "a"]),
        ([1, 2], [10, 10], ["a", None]),
        ([0, 0], [10, 10], ["a", "b"]),
        ([1, 2], [0, 0], ["a", "b"]),
        ([], [], []),
    ],
)
def test_no_interval(errors: list[int], words: list[int], speakers: list[str | None]) -> None:
    """One speaker, an unknown speaker, no error, no reference word, no utterance."""
    assert rate_interval(errors, words, speakers) is None


def test_utterances_of_a_speaker_stay_together() -> None:
    """The interval depends on the totals of the speakers, not on their utterances or the order of these."""
    whole = rate_interval([10, 2, 30, 4], [100] * 4, names(4))
    parts = rate_interval([5, 1, 15, 2] * 2, [50] * 8, names(4) * 2)
    assert whole == parts


def test_degrees_of_freedom() -> None:
    """G − 1 for equal clusters, fewer for unequal ones, none for a single one with words."""
    assert degrees_of_freedom(np.full(20, 50.0)) == pytest.approx(19)
    assert degrees_of_freedom(np.array([1000.0, *[10.0] * 19])) < 2
    assert degrees_of_freedom(np.array([100.0, 0.0])) == 0
    assert two_sided_t(0) == np.inf


def test_the_limit_of_a_share() -> None:
    """Three in n if none was found (rule of three); found ones raise it."""
    assert share_at_most(0, 1_313) == pytest.approx(100 * 2.9957 / 1_313, rel=1e-4)
    assert share_at_most(3, 1_313) == pytest.approx(100 * 7.7537 / 1_313, rel=1e-4)
    assert share_at_most(0, 1) == 100
