"""Bootstrap over speakers: worked examples, comparison with SciPy, and coverage in simulations."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from whisperbench.stats.bootstrap import Interval, bootstrap_interval

Floats = npt.NDArray[np.float64]


def names(count: int) -> list[str]:
    return [f"speaker {number}" for number in range(count)]


def speakers_of_a_corpus(generator: np.random.Generator, count: int, spread: float) -> tuple[Floats, Floats]:
    """Expected errors at a WER of 3 % and words of each speaker; `spread` is the rates' standard deviation / mean."""
    words = 20 * generator.integers(20, 80, size=count).astype(np.float64)
    rates = np.full(count, 0.03) if spread == 0 else generator.gamma(spread**-2, 0.03 * spread**2, size=count)
    return np.asarray(rates * words), words


def test_interval_worked_by_hand() -> None:
    """Two speakers with 4 and 16 errors in 100 words each, in Student's t with one degree of freedom.

    R = 20/200 = 0.1; residuals −6 and 6; squared error 2/1 × 72 / 200² = 0.0036, error 0.06.  The 50 %
    limits of t with one degree of freedom are ±1: 10 % ± 6 %.
    """
    interval = bootstrap_interval([4, 16], [100, 100], ["a", "b"], seed=1, resamples=200_000, level=0.5)
    assert interval is not None
    assert interval.low == pytest.approx(4, abs=0.1)
    assert interval.high == pytest.approx(16, abs=0.1)


def test_resampled_interval_worked_by_hand() -> None:
    """Six speakers of 100 words; one has 6 errors and the others none, so a resample is k = how often it is drawn.

    R = 1 %, residuals five of −1 and one of 5: error = √(6/5 × 30) / 600 = 1 %.  A resample has the
    rate k % and the error √(6/5 × (36k − 6k²)) / 600: t = (k − 1) / 1 for k = 0 needs the floor of one
    error, 1/600, so t = −6.  k follows Binomial(6, 1/6): P(0) = 0.335, P(0 to 1) = 0.737.  At a level
    of 0.4 the tails are 0.3: the low quantile is k = 0, t = −6, and the high one, at 0.7, k = 1, t = 0.
    So the limits are 1 − 0 × 1 = 1 and 1 + 6 × 1 = 7 percent.
    """
    interval = bootstrap_interval([6, 0, 0, 0, 0, 0], [100] * 6, names(6), seed=1, level=0.4)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((1, 7))


def test_limits_are_those_of_scipy() -> None:
    """SciPy's resampling of the same t statistic gives the same limits within 3 % of the interval's width."""
    import scipy.stats

    generator = np.random.default_rng(5)
    expected, words = speakers_of_a_corpus(generator, 40, spread=0.7)
    errors, n = generator.poisson(expected).astype(np.float64), len(words)

    def rate_and_error(e: Floats, w: Floats) -> tuple[Any, Any]:
        rate = e.sum(axis=-1) / w.sum(axis=-1)
        residuals = e - rate[..., np.newaxis] * w
        return rate, np.sqrt(n / (n - 1) * (residuals**2).sum(axis=-1)) / w.sum(axis=-1)

    rate, error = rate_and_error(errors, words)

    def t_statistic(e: Floats, w: Floats, axis: int) -> Any:
        assert axis in (-1, e.ndim - 1)
        resampled, its_error = rate_and_error(e, w)
        return (resampled - rate) / its_error

    t_limits = scipy.stats.bootstrap(
        (errors, words), t_statistic, paired=True, vectorized=True, method="percentile", rng=6, n_resamples=20_000
    ).confidence_interval
    theirs = Interval(100 * (rate - t_limits.high * error), 100 * (rate - t_limits.low * error))
    ours = bootstrap_interval(errors, words, names(n), seed=7, resamples=20_000)
    assert ours is not None
    tolerance = 0.03 * (theirs.high - theirs.low)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=tolerance)


def test_interval_agrees_with_scipy_bca() -> None:
    """With 200 speakers SciPy's BCa interval of the ratio of sums lies within 6 % of the width of ours."""
    import scipy.stats

    generator = np.random.default_rng(8)
    expected, words = speakers_of_a_corpus(generator, 200, spread=0.5)
    errors = generator.poisson(expected)
    theirs = scipy.stats.bootstrap(
        (errors, words),
        lambda e, w, axis: 100 * e.sum(axis=axis) / w.sum(axis=axis),
        paired=True, vectorized=True, method="BCa", rng=9, n_resamples=10_000,
    ).confidence_interval  # fmt: skip
    ours = bootstrap_interval(errors, words, names(200), seed=10)
    assert ours is not None
    tolerance = 0.06 * (theirs.high - theirs.low)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=tolerance)


@pytest.mark.parametrize(("speakers", "spread"), [(30, 0), (30, 0.7), (40, 0), (40, 0.7), (40, 1.0), (100, 0.7)])
def test_95_percent_interval_covers(speakers: int, spread: float) -> None:
    """Of 1,000 simulated corpora, 93 to 97 % have the true WER of 3 % inside their interval: 95 within 2.9 errors."""
    generator, covered = np.random.default_rng(11), 0
    for seed in range(1_000):
        expected, words = speakers_of_a_corpus(generator, speakers, spread)
        interval = bootstrap_interval(generator.poisson(expected), words, names(speakers), seed, resamples=1_000)
        assert interval is not None
        covered += interval.low <= 3 <= interval.high
    assert 0.93 <= covered / 1_000 <= 0.97


@pytest.mark.parametrize(("speakers", "least"), [(30, 0.86), (40, 0.86), (100, 0.91)])
def test_what_the_interval_does_not_promise(speakers: int, least: float) -> None:
    """Where few speakers make most of the errors it covers less than 95 %, and most of its misses are too low.

    The docstring of the module states it.
    """
    generator, too_low, too_high, n, sigma = np.random.default_rng(15), 0, 0, 1_000, 1.2
    for seed in range(n):
        words = 20 * generator.integers(20, 80, size=speakers).astype(np.float64)
        rates = 0.03 * generator.lognormal(-(sigma**2) / 2, sigma, size=speakers)
        interval = bootstrap_interval(generator.poisson(rates * words), words, names(speakers), seed, resamples=1_000)
        assert interval is not None
        too_low += interval.high < 3
        too_high += interval.low > 3
    assert least <= 1 - (too_low + too_high) / n <= 0.94
    assert too_low > 2 * too_high


def test_utterances_of_a_speaker_stay_together() -> None:
    """Splitting each speaker's words over utterances changes nothing; making each its own speaker narrows."""
    errors, words = [10, 2, 30, 4, 6, 0, 9, 3], [100] * 8
    whole = bootstrap_interval(errors, words, names(8), seed=1)
    halves = bootstrap_interval(
        [half for e in errors for half in (e // 2, e - e // 2)], [50] * 16, [n for n in names(8) for _ in "ab"], seed=1
    )
    strangers = bootstrap_interval(
        [half for e in errors for half in (e // 2, e - e // 2)], [50] * 16, names(16), seed=1
    )
    assert whole is not None
    assert strangers is not None
    assert halves == whole
    assert strangers.high - strangers.low < whole.high - whole.low


def test_seed_and_not_order_decides() -> None:
    """The same seed gives the same limits, whatever the order of the utterances; another seed gives others."""
    errors, words, clusters = [1, 5, 2, 0, 7, 3, 2], [20, 30, 25, 10, 40, 30, 25], list("abcdefa")
    first = bootstrap_interval(errors, words, clusters, seed=1)
    assert bootstrap_interval(errors[::-1], words[::-1], clusters[::-1], seed=1) == first
    assert bootstrap_interval(errors, words, clusters, seed=2) != first


def test_no_errors_at_all() -> None:
    """Without an error the interval is (0, 0)."""
    assert bootstrap_interval([0] * 8, [10] * 8, names(8), seed=1) == Interval(0, 0)


def test_nothing_can_be_said() -> None:
    """One speaker, no utterance, no reference word: no interval."""
    assert bootstrap_interval([1, 2], [10, 10], ["a", "a"], seed=1) is None
    assert bootstrap_interval([], [], [], seed=1) is None
    assert bootstrap_interval([1, 2], [0, 0], ["a", "b"], seed=1) is None


def test_shapes_that_do_not_match() -> None:
    """Errors, words and clusters of different lengths are refused, not broadcast."""
    with pytest.raises(ValueError, match="do not match"):
        bootstrap_interval([1], [10, 10], ["a", "b"], seed=1)


def test_speakers_without_reference_words() -> None:
    """Insertions of a speaker without words count; a resample of such speakers only has no rate."""
    interval = bootstrap_interval([5, 0, 0, 0, 0], [0, 0, 0, 0, 10], names(5), seed=1)
    assert interval is not None
    assert 0 <= interval.low <= 50 <= interval.high < np.inf


def test_quick_enough_for_a_whole_test_set() -> None:
    """2,620 utterances, each its own cluster, and 10,000 resamples take seconds of CPU time."""
    generator = np.random.default_rng(14)
    words, errors = 1 + generator.poisson(20, 2_620), generator.poisson(0.5, 2_620)
    started = time.process_time()
    bootstrap_interval(errors, words, names(2_620), seed=1)
    assert time.process_time() - started < 6
