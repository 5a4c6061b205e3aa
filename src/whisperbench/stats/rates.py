"""Test whether rates differ by more than their measurement noise, for leaderboards and the regression gate.

The logarithms of a system's rates scatter about its own median, and systems of one speed key (one GPU, one data
set) have about the same noise.  A system's figure is the median of its repeats.  Its noise is the median distance
of repeats from their system's median: over all systems that were measured twice, or over its own repeats if that is
larger.  Medians are used because a single bad repeat moves neither of them.

The distribution of such medians of few values is simulated with equal systems that have as many repeats each.  A
rate differs if it is farther away, in units of the noise, than the farthest system in 95 % of the simulations.  The
system farthest from the best is used, so the level holds for a leaderboard as a whole.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Sequence
from typing import Self

import numpy as np

from whisperbench.stats.bootstrap import LEVEL, Floats, Interval

Rates = Sequence[Sequence[float]]
"""Rates of one system, a list of repeats for each of its runs."""

SIMULATIONS = 10_000
ENOUGH_RERUNS = 3
"""From this many runs beyond the first of each system, a run is one observation instead of a repeat, because all
repeats of a run share the effects of one engine start."""
MAX_FACTOR = 1_000.0
"""The limits of a change are at most this factor apart from no change."""
MIN_NOISE = 0.0005
"""The smallest noise that is assumed: two repeats that happen to be equal do not prove that a rate is exact."""


@dataclasses.dataclass(frozen=True, slots=True)
class RateTest:
    """Difference of two rates in percent of the second, with 95 % limits."""

    change: float
    low: float
    high: float
    p_value: float

    @property
    def significant(self) -> bool:
        return self.p_value < 1 - LEVEL


@dataclasses.dataclass(frozen=True, slots=True)
class Simulated:
    """Results of SIMULATIONS simulations of equal systems with as many repeats.

    `errors`: the standard deviation of each system's median if that of a repeat is 1, shape (systems,).
    `margins`: 95 % of a system's medians lie within this many of its standard errors, shape (systems,).
    `farthest`: the distance of the system farthest from the best, in standard errors of that difference.
    """

    errors: Floats
    margins: Floats
    farthest: Floats


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SpeedNoise:
    """Medians and standard errors of systems of one speed key (natural logarithms), both of shape (systems,)."""

    middles: Floats
    errors: Floats
    simulated: Simulated

    @classmethod
    def of(cls, systems: Sequence[Rates], others: Sequence[Rates] = ()) -> Self | None:
        """Estimate the noise of the rates of `systems`; None if no system was measured twice.

        Args:
            systems: systems to compare, each with at least one rate above 0.
            others: further systems of the same speed key, which improve the estimate of the noise.
        """
        by_run = [*map(_logarithms, systems), *filter(None, map(_logarithms, others))]
        if sum(len(runs) - 1 for runs in by_run) >= ENOUGH_RERUNS:
            samples = [[statistics.median(run) for run in runs] for runs in by_run]
        else:
            samples = [[value for run in runs for value in run] for runs in by_run]
        if not systems or all(len(sample) < 2 for sample in samples):
            return None
        middles, noise = middles_and_noise([np.array([sample]) for sample in samples])
        count = len(systems)
        simulated = simulate(tuple(map(len, samples)), count)
        return cls(middles[0, :count], np.maximum(noise[0, :count], MIN_NOISE) * simulated.errors, simulated)

    def interval(self, i: int) -> Interval:
        """The 95 % interval of the rate of system `i`."""
        margin = self.simulated.margins[i] * self.errors[i]
        return Interval(*(math.exp(self.middles[i]) * _exp(side * margin) for side in (-1, 1)))

    def test(self, i: int, j: int) -> RateTest:
        """Compare the rates of systems `i` and `j`, at a level that holds for all systems together."""
        difference, unit = self.middles[i] - self.middles[j], math.hypot(self.errors[i], self.errors[j])
        margin = float(np.quantile(self.simulated.farthest, LEVEL)) * unit
        as_far = int(np.count_nonzero(self.simulated.farthest * unit >= abs(difference)))
        change, low, high = (100 * (_exp(difference + side * margin) - 1) for side in (0, -1, 1))
        return RateTest(change, low, high, (as_far + 1) / (len(self.simulated.farthest) + 1))


def _logarithms(rates: Rates) -> list[list[float]]:
    """The logarithms of a system's positive rates, by run; other values are not measurements."""
    runs = ([math.log(value) for value in run if value > 0] for run in rates)
    return [run for run in runs if run]


def middles_and_noise(samples: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Medians and noise of the systems in m simulations (or one measurement), both of shape (m, systems).

    `samples`: one array of shape (m, repeats) per system.
    """
    middles = np.stack([np.median(sample, axis=1) for sample in samples], axis=1)
    # The middle value of an odd number is the median itself, so its distance of 0 is left out.
    distances = [
        np.sort(np.abs(sample - middles[:, [i]]), axis=1)[:, sample.shape[1] % 2 :] for i, sample in enumerate(samples)
    ]
    usual = np.median(np.hstack(distances), axis=1)
    own = [np.median(each, axis=1) if each.shape[1] else usual for each in distances]
    return middles, np.maximum(np.stack(own, axis=1), usual[:, np.newaxis])


@functools.lru_cache(maxsize=64)
def simulate(repeats: tuple[int, ...], compared: int) -> Simulated:
    """Simulate equal systems with these numbers of repeats; the first `compared` are compared."""
    generator = np.random.default_rng(0)
    middles, noise = middles_and_noise([generator.standard_normal((SIMULATIONS, n)) for n in repeats])
    middles, noise = middles[:, :compared], noise[:, :compared]
    spread = middles.std(axis=0)
    errors = noise * spread
    margins = np.quantile(np.abs(middles) / errors, LEVEL, axis=0)
    return Simulated(spread, margins, farthest_from_best(middles, errors))


def farthest_from_best(middles: Floats, errors: Floats) -> Floats:
    """The largest distance of a system from the best, in standard errors of that difference, shape (m,)."""
    best = middles.argmax(axis=1)[:, np.newaxis]
    below_best = np.take_along_axis(middles, best, axis=1) - middles
    distances: Floats = below_best / np.hypot(errors, np.take_along_axis(errors, best, axis=1))
    farthest: Floats = distances.max(axis=1)
    return farthest


def _exp(value: float) -> float:
    """A factor, at most MAX_FACTOR: with only two repeats far apart the limit would have hundreds of digits."""
    return math.exp(min(value, math.log(MAX_FACTOR)))
