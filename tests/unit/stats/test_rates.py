"""Rates of runs: one estimator for the figure, its interval and its comparison."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from whisperbench.stats.clusters import Interval
from whisperbench.stats.rates import RateDifference, RateEstimate, rate_difference, runs_needed


def estimate(rates: list[list[float]]) -> RateEstimate:
    found = RateEstimate.of(rates)
    assert found is not None
    return found


def difference(*rates: list[list[float]], **options: Any) -> RateDifference:
    found = rate_difference(*rates, **options)
    assert found is not None
    return found


def test_a_run_counts_once() -> None:
    """The figure is the geometric mean of run medians, however many repeats a run has."""
    found = estimate([[90.0], [100.0, 200.0, 100.0], [111.0]])
    assert (found.figure, found.runs) == (pytest.approx((90 * 100 * 111) ** (1 / 3)), 3)


def test_the_noise_is_that_of_runs() -> None:
    """After one run it is unknown, also with repeats; two runs that agree have the smallest noise that is assumed."""
    assert (estimate([[40.0, 41.0]]).noise_percent, estimate([[40.0, 41.0]]).interval) == (None, None)
    assert estimate([[40.0], [40.0]]).noise_percent == pytest.approx(0.2)
    assert estimate([[100.0], [102.0], [104.0]]).noise_percent == pytest.approx(1.96, abs=0.01)


def test_what_is_not_above_zero_is_not_a_measurement() -> None:
    """Such values and runs without any other are left out."""
    assert estimate([[0.0, 40.0], [0.0]]) == estimate([[40.0]])
    assert RateEstimate.of([[0.0], []]) is None
    assert rate_difference([[0.0]], [[40.0]]) is None


def test_intervals_cover() -> None:
    """93 to 97 % of the intervals of three runs hold the true rate."""
    generator, covered = np.random.default_rng(23), 0
    for rates in 100 * np.exp(0.02 * generator.standard_normal((2_000, 3))):
        interval = estimate([[rate] for rate in rates]).interval
        assert interval is not None
        covered += interval.low <= 100 <= interval.high
    assert 0.93 <= covered / 2_000 <= 0.97


def test_a_difference_worked_out_by_hand() -> None:
    """Pooled t on logarithms; the change is that of the printed figures."""
    a, b = [100.0, 102.0], [90.0, 93.0]
    found = difference([[x] for x in a], [[x] for x in b])
    logs = np.log(a), np.log(b)
    error = math.sqrt(sum(((each - each.mean()) ** 2).sum() for each in logs) / 2)
    middle, half = logs[1].mean() - logs[0].mean(), 4.30265 * error
    low, high = (pytest.approx(100 * math.expm1(limit), rel=1e-4) for limit in (middle - half, middle + half))
    assert found.interval == Interval(low, high)
    assert found.change == pytest.approx(100 * (found.candidate / found.baseline - 1))
    assert found.change == pytest.approx(100 * math.expm1(middle))


def test_the_noise_of_two_single_runs_is_that_of_the_table() -> None:
    """It is pooled over all rows, and unknown without repeated runs; more comparisons widen the limits."""
    assert difference([[40.0, 41.0]], [[30.0]]).limits == "noise unknown"
    others = [[[10.0], [10.1]], [[20.0], [19.8]], [[5.0], [5.05]]]
    pooled = difference([[40.0]], [[30.0]], others=others).interval
    wider = difference([[40.0]], [[30.0]], others=others, comparisons=10).interval
    assert pooled is not None
    assert wider is not None
    assert wider.low < pooled.low < -25 < pooled.high < wider.high < -19


def test_useless_limits_are_not_printed() -> None:
    """Four noisy runs on a shared CPU against one: an interval of -99 to +12000 % is not a result."""
    found = difference([[4.03], [0.64], [4.32], [1.46]], [[1.91]])
    assert found.limits == "not known to a factor of two"
    assert (found.change < 0) is (found.candidate < found.baseline)


@pytest.mark.parametrize(("spread", "runs"), [(0.01, 3), (0.02, 4), (0.03, 7), (0.05, 16), (0.1, 61), (9.0, 99)])
def test_runs_needed(spread: float, runs: int) -> None:
    """For a limit of 5 % with a power of 80 %."""
    assert runs_needed(spread, 5.0) == runs
