"""Which rates differ by more than the noise of measuring them: one model for leaderboards and the gate.

The model: the logarithms of a system's rates scatter about its own middle, and systems of one speed key (one
GPU, one data set) are about equally noisy.  A system's figure is the median of its repeats; its noise is the
median distance of repeats from their system's median, over all systems that were measured twice, or over its own
where that is more.  Medians, so that one repeat that went wrong moves neither.

What such medians of few values are worth is in no table: the same figures are taken of simulated equal systems
with as many repeats each, and a rate differs where in 95 % of these nothing lies as far, in units of the noise.
Of many systems the one that is farthest from the best counts, so that the level holds for a board as a whole.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Sequence
from typing import Self

import numpy as np

from whisperbench.compare.systems import System
from whisperbench.stats.bootstrap import LEVEL, Floats, Interval

SIMULATIONS = 10_000
ENOUGH_RERUNS = 3
"""Runs beyond the first of their systems, from which on runs and not repeats are counted: what differs between two
starts of the engine is the same for all repeats of one."""
MOST = 1_000.0
"""No limit of a change is farther away, as a factor."""
QUIETEST = 0.0005
"""No rate is taken for quieter than that; two repeats that happen to be equal would promise certainty."""


@dataclasses.dataclass(frozen=True, slots=True)
class RateTest:
    """A rate against another: the change in percent of the other, with its 95 % limits."""

    change: float
    low: float
    high: float
    p_value: float

    @property
    def significant(self) -> bool:
        return self.p_value < 1 - LEVEL


@dataclasses.dataclass(frozen=True, slots=True)
class Simulated:
    """What equal systems with as many repeats show, SIMULATIONS times.

    `errors`: the standard deviation of each system's median where repeats have 1, shape (systems,).
    `margins`: how many of its own standard errors 95 % of a system's medians stay within, shape (systems,).
    `farthest`: the distance of the system farthest from the best, in standard errors of that difference.
    """

    errors: Floats
    margins: Floats
    farthest: Floats


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SpeedNoise:
    """Systems of one speed key with their middles and standard errors (natural logarithms), shape (systems,)."""

    systems: tuple[System, ...]
    middles: Floats
    errors: Floats
    simulated: Simulated

    @classmethod
    def of(cls, systems: Sequence[System], metric: str, others: Sequence[System] = ()) -> Self | None:
        """The noise of a metric; None where nothing was measured twice, so that nobody knows it.

        Args:
            systems: those that are compared; left out where the metric was not measured.
            others: further ones of the same speed key, which tell how noisy it is.
        """
        compared = [system for system in systems if _values(system, metric)]
        everyone = [*compared, *(system for system in others if _values(system, metric))]
        by_run = [_values(system, metric) for system in everyone]
        if sum(len(runs) - 1 for runs in by_run) >= ENOUGH_RERUNS:
            samples = [[statistics.median(run) for run in runs] for runs in by_run]
        else:
            samples = [[value for run in runs for value in run] for runs in by_run]
        if not compared or all(len(sample) < 2 for sample in samples):
            return None
        middles, noise = middles_and_noise([np.array([sample]) for sample in samples])
        simulated = simulate(tuple(map(len, samples)), len(compared))
        count = len(compared)
        errors = np.maximum(noise[0, :count], QUIETEST) * simulated.errors
        return cls(tuple(compared), middles[0, :count], errors, simulated)

    def interval(self, system: System) -> Interval:
        """The 95 % interval of one system's rate."""
        i = self.systems.index(system)
        margin = self.simulated.margins[i] * self.errors[i]
        return Interval(*(math.exp(self.middles[i]) * _exp(side * margin) for side in (-1, 1)))

    def test(self, system: System, other: System) -> RateTest:
        """A system's rate against the other's, at one level for all systems."""
        i, j = (self.systems.index(each) for each in (system, other))
        difference, unit = self.middles[i] - self.middles[j], math.hypot(self.errors[i], self.errors[j])
        margin = float(np.quantile(self.simulated.farthest, LEVEL)) * unit
        as_far = int(np.count_nonzero(self.simulated.farthest * unit >= abs(difference)))
        change, low, high = (100 * (_exp(difference + side * margin) - 1) for side in (0, -1, 1))
        return RateTest(change, low, high, (as_far + 1) / (len(self.simulated.farthest) + 1))


def _values(system: System, metric: str) -> list[list[float]]:
    """The logarithms of a system's values, run by run; what is not above 0 is no measurement of a rate."""
    runs = ([math.log(value) for value in run.values(metric) if value > 0] for run in system.runs)
    return [run for run in runs if run]


def middles_and_noise(samples: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Of m simulations (or of one measurement) the systems' medians and noise, both of shape (m, systems).

    `samples`: one of shape (m, repeats) per system.
    """
    middles = np.stack([np.median(sample, axis=1) for sample in samples], axis=1)
    # The middle one of an odd number is its own median: its distance says nothing, so it is left out.
    distances = [
        np.sort(np.abs(sample - middles[:, [i]]), axis=1)[:, sample.shape[1] % 2 :] for i, sample in enumerate(samples)
    ]
    usual = np.median(np.hstack(distances), axis=1)
    own = [np.median(each, axis=1) if each.shape[1] else usual for each in distances]
    return middles, np.maximum(np.stack(own, axis=1), usual[:, np.newaxis])


@functools.lru_cache(maxsize=64)
def simulate(repeats: tuple[int, ...], compared: int) -> Simulated:
    """Equal systems with these numbers of repeats, the first of which are compared; the same for any noise."""
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
    """A factor, at most MOST: where only two repeats far apart are known, limits say nothing, in hundreds of digits."""
    return math.exp(min(value, math.log(MOST)))
