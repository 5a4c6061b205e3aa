"""Rates of runs and their differences: Student's t on logarithms of run medians.

The repeats of a run share one engine start, so a run counts once, with the median of its repeats.  The figure of
several runs is the geometric mean of their medians; its interval and every test use the same mean of logarithms.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from whisperbench.stats.clusters import Floats, Interval, two_sided_t

Rates = Sequence[Sequence[float]]
"""The repeats of each run; values that are not above 0 are not measurements."""

MIN_SPREAD = 0.002
"""The smallest standard deviation of logarithms that is assumed, because two runs may agree by chance."""
POWER = 0.8
MAX_RUNS = 99


@dataclasses.dataclass(frozen=True, slots=True)
class RateEstimate:
    """A rate with its noise from run to run in percent and its 95 % interval; both are None after one run."""

    figure: float
    runs: int
    noise_percent: float | None
    interval: Interval | None

    @classmethod
    def of(cls, rates: Rates) -> RateEstimate | None:
        """The estimate of one system; None without a rate above 0."""
        logs = log_medians(rates)
        if not len(logs):
            return None
        mean, n = float(logs.mean()), len(logs)
        if n < 2:
            return cls(math.exp(mean), n, None, None)
        spread = pooled_spread(logs)
        half = two_sided_t(n - 1) * spread / math.sqrt(n)
        return cls(math.exp(mean), n, 100 * spread, Interval(math.exp(mean - half), math.exp(mean + half)))


@dataclasses.dataclass(frozen=True, slots=True)
class RateDifference:
    """Change of a rate from a baseline to a candidate, in percent of the baseline's rate.

    `interval` and `spread`, the standard deviation of logarithms from run to run, are None if no run was repeated.
    `runs` are the numbers of runs of the baseline and the candidate.
    """

    baseline: float
    candidate: float
    interval: Interval | None
    spread: float | None
    runs: tuple[int, int]

    @property
    def change(self) -> float:
        return 100 * (self.candidate / self.baseline - 1)

    @property
    def limits(self) -> str:
        """`-6.1 to -1.2 %`; an interval beyond a factor of two is not printed."""
        if self.interval is None:
            return "noise unknown"
        low, high = self.interval.low, self.interval.high
        if (100 + high) > 4 * (100 + low):
            return "not known to a factor of two"
        return f"95 % interval {low:+.1f} to {high:+.1f} %"


def rate_difference(
    baseline: Rates, candidate: Rates, *, others: Sequence[Rates] = (), comparisons: int = 1
) -> RateDifference | None:
    """Compare the rates of two systems; None if one of them has no rate above 0.

    Args:
        others: further systems of one table, whose noise is pooled with that of the two.
        comparisons: number of comparisons for which the limits hold together (Bonferroni).
    """
    a, b = log_medians(baseline), log_medians(candidate)
    n, k = len(a), len(b)
    if not n or not k:
        return None
    means = math.exp(a.mean()), math.exp(b.mean())
    groups = [group for group in (a, b, *map(log_medians, others)) if len(group)]
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return RateDifference(*means, None, None, (n, k))
    spread = pooled_spread(*groups)
    middle = float(b.mean() - a.mean())
    half = two_sided_t(freedom, comparisons=comparisons) * spread * math.sqrt(1 / n + 1 / k)
    interval = Interval(_percent(middle - half), _percent(middle + half))
    return RateDifference(*means, interval, spread, (n, k))


def runs_needed(spread: float, allowed: float) -> int:
    """Runs of each side with which two equal systems pass a gate with a probability of 80 %, at most MAX_RUNS.

    Args:
        spread: standard deviation of the logarithms of rates from run to run.
        allowed: loss that is accepted, in percent.
    """
    limit = -math.log1p(-allowed / 100)
    for n in range(2, MAX_RUNS):
        t = two_sided_t(2 * n - 2) + float(stdtrit(2 * n - 2, POWER))
        if t * spread * math.sqrt(2 / n) <= limit:
            return n
    return MAX_RUNS


def log_medians(rates: Rates) -> Floats:
    """The logarithm of the median of each run that has a rate, shape (runs,)."""
    runs = ([rate for rate in run if rate > 0] for run in rates)
    return np.array([math.log(float(np.median(run))) for run in runs if run], dtype=np.float64)


def pooled_spread(*groups: Floats) -> float:
    """Pooled standard deviation of groups of logarithms, at least MIN_SPREAD."""
    freedom = sum(len(group) - 1 for group in groups)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return max(math.sqrt(squares / freedom), MIN_SPREAD)


def _percent(logarithm: float) -> float:
    return 100 * math.expm1(min(logarithm, math.log(1_000)))
