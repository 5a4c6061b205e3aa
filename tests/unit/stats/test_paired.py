"""Paired test of systems: worked examples, and its level in simulations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.unit.stats.test_bootstrap import names, speakers_of_a_corpus
from whisperbench.stats.paired import JointBootstrap, PairedTest

SPEAKERS = 40


def worse_than_the_best(errors: npt.ArrayLike, words: npt.ArrayLike, seed: int) -> set[int]:
    """The systems of a board that are called worse than its best; errors of each speaker, shape (systems, speakers)."""
    joint = JointBootstrap.of(np.asarray(errors), words, names(SPEAKERS), seed, resamples=250)
    best = int(joint.rates.argmin())
    return {i for i in range(len(joint.rates)) if i != best and joint.test(i, best).significant}


@pytest.mark.parametrize(("systems", "boards"), [(2, 1000), (3, 600), (4, 600), (8, 400), (16, 200), (32, 150)])
@pytest.mark.parametrize(("share", "spread"), [(1.0, 0.7), (0.1, 0.7)])
def test_a_board_of_equal_systems_is_level(systems: int, boards: int, share: float, spread: float) -> None:
    """Of so many boards of equally good systems, at most 6 % call anything worse than the best.

    `share` of a speaker's errors are a system's own; the others are made by all.  Tested one by one against
    the best, 12 % of boards of 4, 37 % of 8 and 73 % of 16 would.
    """
    generator, called_worse = np.random.default_rng(12), 0
    for seed in range(boards):
        expected, words = speakers_of_a_corpus(generator, SPEAKERS, spread)
        common = generator.poisson((1 - share) * expected)
        errors = common + generator.poisson(share * expected, size=(systems, SPEAKERS))
        called_worse += bool(worse_than_the_best(errors, words, seed))
    assert called_worse / boards <= 0.06


@pytest.mark.parametrize(("systems", "least"), [(2, 0.85), (8, 0.75)])
def test_one_worse_system_is_found(systems: int, least: float) -> None:
    """20 % more errors, most of them its own, among equal ones; what pairs were found before is in the diary."""
    generator, found = np.random.default_rng(13), 0
    for seed in range(200):
        expected, words = speakers_of_a_corpus(generator, SPEAKERS, 0.7)
        errors = generator.poisson(expected, size=(systems, SPEAKERS))
        errors[0] = generator.poisson(1.2 * expected)
        found += 0 in worse_than_the_best(errors, words, seed)
    assert found / 200 >= least


def test_one_wild_pair_does_not_decide_for_all() -> None:
    """Three that differ from the first by ten errors on three speakers: a fourth, worse everywhere, is found."""
    generator, found = np.random.default_rng(14), 0
    for seed in range(50):
        expected, words = speakers_of_a_corpus(generator, SPEAKERS, 0.7)
        first = generator.poisson(expected)
        alike = [first + 10 * (np.arange(SPEAKERS) % 13 == k) * (np.arange(SPEAKERS) < 39) for k in range(3)]
        found += 4 in worse_than_the_best([first, *alike, generator.poisson(1.3 * expected)], words, seed)
    assert found >= 40


def paired_test_of(
    a: Any, b: Any, words: Any, clusters: Sequence[str], seed: int, *, resamples: int = 10_000
) -> PairedTest:
    """The test of two systems alone."""
    return JointBootstrap.of((a, b), words, clusters, seed, resamples=resamples).test(0, 1)


def test_every_pair_of_two_is_the_paired_test() -> None:
    """Two systems have one pair: its own critical value decides."""
    generator = np.random.default_rng(15)
    expected, words = speakers_of_a_corpus(generator, SPEAKERS, 0.7)
    joint = JointBootstrap.of(generator.poisson(expected, size=(2, SPEAKERS)), words, names(SPEAKERS), seed=1)
    assert np.quantile(joint.largest, 0.95) == pytest.approx(1)


def test_limits_and_p_hold_for_more_pairs_at_once() -> None:
    """With more systems beside them, a pair's limits widen and its p grows, and its difference stays."""
    generator = np.random.default_rng(16)
    expected, words = speakers_of_a_corpus(generator, SPEAKERS, 0.7)
    errors = generator.poisson(expected, size=(8, SPEAKERS))
    two, eight = (JointBootstrap.of(errors[:k], words, names(SPEAKERS), seed=1).test(0, 1) for k in (2, 8))
    assert eight.difference == two.difference
    assert eight.low < two.low < two.high < eight.high
    assert eight.p_value > two.p_value


def test_no_errors_at_all() -> None:
    """Systems without an error do not differ."""
    assert paired_test_of([0] * 8, [0] * 8, [10] * 8, names(8), seed=1) == PairedTest(0, 0, 0, p_value=1)


def test_nothing_can_be_said() -> None:
    """One speaker: a test that excludes nothing, of any number of systems; no reference word: refused."""
    assert paired_test_of([1, 2], [0, 0], [10, 10], ["a", "a"], seed=1) == PairedTest(15, -np.inf, np.inf, 1)
    joint = JointBootstrap.of([[1, 2], [0, 0], [0, 1]], [10, 10], ["a", "a"], seed=1)
    assert joint.test(0, 1).p_value == 1
    with pytest.raises(ValueError, match="0 reference words"):
        paired_test_of([1, 2], [0, 0], [0, 0], ["a", "b"], seed=1)


def test_shapes_that_do_not_match() -> None:
    """Errors, words and clusters of different lengths are refused, not broadcast."""
    with pytest.raises(ValueError, match="do not match"):
        paired_test_of([1], [1], [10, 10], ["a", "b"], seed=1)


def test_quick_enough_for_a_large_board() -> None:
    """60 systems on 40 speakers take less than 3 s of CPU."""
    generator = np.random.default_rng(17)
    expected, words = speakers_of_a_corpus(generator, SPEAKERS, 0.7)
    started = time.process_time()
    JointBootstrap.of(generator.poisson(expected, size=(60, SPEAKERS)), words, names(SPEAKERS), seed=1)
    assert time.process_time() - started < 3


def test_p_value_worked_by_hand() -> None:
    """In the corpus above as a difference, the sample's own t is 1 % / 1 % = 1: which resamples are as far away?

    k = 0 is, with t = −6.  For k = 2 the error is √(6/5 × 48) / 600 = 1.265 %, so t = 0.79 is not; for
    k = 3 it is √(6/5 × 54) / 600 = 1.342 %, so t = 1.49 is, and so are all above.
    p = P(k = 0) + P(k ≥ 3) = 0.3349 + 0.0623 = 0.3972.
    """
    test = paired_test_of([6, 0, 0, 0, 0, 0], [0] * 6, [100] * 6, names(6), seed=1, resamples=100_000)
    assert test.difference == pytest.approx(1)
    assert test.p_value == pytest.approx(0.3972, abs=0.005)
    assert not test.significant


@pytest.mark.parametrize(("speakers", "share"), [(30, 1.0), (40, 1.0), (40, 0.1), (100, 1.0), (5, 1.0), (3, 1.0)])
def test_two_equal_systems_rarely_differ(speakers: int, share: float) -> None:
    """Of 1,500 pairs of equally good systems, fewer than 6 % are called different.

    `share` of a speaker's errors are a system's own; the others are made by both systems.
    """
    generator, called_different = np.random.default_rng(12), 0
    for seed in range(1_500):
        expected, words = speakers_of_a_corpus(generator, speakers, spread=0.7)
        common = generator.poisson((1 - share) * expected)
        a, b = (common + generator.poisson(share * expected) for _ in range(2))
        called_different += paired_test_of(a, b, words, names(speakers), seed, resamples=400).significant
    assert called_different / 1_500 < 0.06


def test_a_real_difference_is_found() -> None:
    """A system with 30 % fewer errors on 40 speakers differs significantly, by the right amount."""
    generator = np.random.default_rng(13)
    expected, words = speakers_of_a_corpus(generator, 40, spread=0.7)
    test = paired_test_of(generator.poisson(expected), generator.poisson(0.7 * expected), words, names(40), seed=1)
    assert test.significant
    assert 0 < test.low < 0.9 < test.high


@pytest.mark.parametrize("seed", range(20))
def test_p_value_and_limits_say_the_same(seed: int) -> None:
    """p < 0.05 exactly where the limits leave 0 out."""
    generator = np.random.default_rng(seed)
    expected, words = speakers_of_a_corpus(generator, 40, spread=0.7)
    test = paired_test_of(generator.poisson(expected), generator.poisson(0.9 * expected), words, names(40), seed)
    assert test.significant == (not test.low <= 0 <= test.high)


def test_swapping_the_systems_swaps_the_sign() -> None:
    """a − b and b − a have the same p and mirrored limits."""
    a, b, words = [5, 2, 9, 4, 7, 1], [4, 2, 3, 4, 6, 0], [100, 80, 120, 90, 110, 60]
    test, mirrored = (paired_test_of(*pair, words, names(6), seed=1) for pair in ((a, b), (b, a)))
    assert (mirrored.difference, mirrored.low, mirrored.high) == pytest.approx(
        (-test.difference, -test.high, -test.low)
    )
    assert mirrored.p_value == test.p_value


def test_same_difference_for_every_speaker_is_certain() -> None:
    """Where each speaker loses the same, no resample contradicts, and p is as small as 1 / (resamples + 1)."""
    test = paired_test_of([3] * 8, [1] * 8, [50] * 8, names(8), seed=1, resamples=999)
    assert (test.difference, test.p_value) == pytest.approx((4, 1 / 1000))
    assert test.significant
