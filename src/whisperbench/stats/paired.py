"""Paired test of error rates on the same utterances, at one level for any number of systems.

Speakers are resampled for all systems together (see `bootstrap`), so the difficulty of an utterance, which all of them
share, cancels out.  Testing each of many systems against the best one finds too many differences, because the best one
is selected by chance and every row is another test.  The level therefore holds for all pairs together: the statistic is
the largest studentised difference of any pair (Romano and Wolf, "Exact and approximate stepdown methods for multiple
hypothesis testing", JASA 100, 2005), each in units of its own critical value, so that a single pair with a wide
distribution does not dominate (Beran, "Balanced simultaneous confidence sets", JASA 83, 1988).  Two systems have one
pair, and the test is the symmetric bootstrap-t (Hall, "On symmetric bootstrap confidence intervals", JRSS B 50, 1988).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from whisperbench.stats.bootstrap import CHUNK_CELLS, FEW_CLUSTERS, LEVEL, Counts, Floats, cluster_totals, times_drawn

Singles = npt.NDArray[np.float32]

MAX_CELLS = 10_000_000
"""Resamples times pairs that are held in memory (40 MB): more than 1,000 pairs have fewer resamples."""
MIN_RESAMPLES = 1_000
MIN_ERROR = 1 / 2
"""The standard error of a resample is at least this fraction of the sample's.  If two systems differ on a few speakers
only, a resample without these speakers would otherwise be infinitely many standard errors away."""


@dataclasses.dataclass(frozen=True, slots=True)
class PairedTest:
    """Difference of the error rates of systems a and b, a − b, with 95 % limits, in percentage points.

    Among many systems, limits and p-value are simultaneous for all pairs.
    """

    difference: float
    low: float
    high: float
    p_value: float

    @property
    def significant(self) -> bool:
        return self.p_value < 1 - LEVEL


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class JointBootstrap:
    """Rates of K systems in errors per word, shape (K,); standard error and critical value of all pairs, (K, K).

    95 % of a pair's own t statistics lie within its critical value.  `largest` has the largest t statistic of any pair
    in units of its critical value for each resample, shape (resamples,).
    """

    rates: Floats
    errors: Floats
    critical: Floats
    largest: Floats
    clusters: int

    @classmethod
    def of(
        cls, errors: Sequence[Counts], words: Counts, clusters: Sequence[str], seed: int, *, resamples: int = 10_000
    ) -> Self:
        """Resample the clusters for all systems together.

        Args:
            errors: errors of each utterance, shape (n,), of each of K systems, at least two.
            words: reference words of each utterance, shape (n,).
            clusters: name of the cluster of each utterance, for example its speaker, length n.

        Raises:
            ValueError: the sizes do not match, or the reference words are 0, so that no rates exist.
        """
        e, w = cluster_totals(errors, words, clusters)
        if not w.any():
            raise ValueError("words: 0 reference words in all, so no error rates can be compared")
        systems, n = e.shape
        first, second = np.triu_indices(systems, 1)
        resamples = min(resamples, max(MIN_RESAMPLES, MAX_CELLS // len(first)))
        differences, standard_errors = (each[0] for each in _of_all_pairs(e, w, np.ones((1, n))))
        if n == 1:
            distances = np.ones((len(first), 1), dtype=np.float32)  # nothing to resample; `test` returns p = 1
        elif n < FEW_CLUSTERS:
            distances = _of_normal_clusters(seed, resamples, systems, n)
        else:
            distances = _of_resamples(e, w, seed, resamples, differences, standard_errors)
        critical = np.quantile(distances, LEVEL, axis=1)
        distances /= np.where(critical > 0, critical, 1)[:, np.newaxis]
        squares = np.zeros((2, systems, systems))
        squares[:, first, second] = squares[:, second, first] = standard_errors, critical
        return cls(
            rates=e.sum(axis=1) / w.sum(),
            errors=squares[0],
            critical=squares[1],
            largest=distances.max(axis=0).astype(np.float64),
            clusters=n,
        )

    def test(self, a: int, b: int) -> PairedTest:
        """Test the difference of the rates of systems a and b.

        One added to both counts keeps p above 0 (Davison and Hinkley, "Bootstrap Methods and their
        Application", 1997, 4.2).  With one cluster the limits are infinite and p = 1.
        """
        difference = 100 * float(self.rates[a] - self.rates[b])
        if self.clusters < 2:
            return PairedTest(difference, -math.inf, math.inf, p_value=1.0)
        unit = 100 * float(self.critical[a, b] * self.errors[a, b])
        # A resample that equals the sample up to rounding counts as equally far away.
        as_far = int(np.count_nonzero(self.largest * unit >= abs(difference) * (1 - 1e-6)))
        margin = float(np.quantile(self.largest, LEVEL)) * unit
        p_value = (as_far + 1) / (len(self.largest) + 1)
        return PairedTest(difference, difference - margin, difference + margin, p_value)


def _of_all_pairs(e: Floats, w: Floats, times: Floats) -> tuple[Floats, Floats]:
    """Differences of rates and their standard errors with each cluster counted `times`, shape (m, clusters).

    Returns two arrays of shape (m, pairs), pairs in the order of `triu_indices`; the formula is that of `bootstrap`,
    applied to the differences of a pair's errors.
    """
    n, count = len(w), len(e)
    words, ww = (times @ w)[:, np.newaxis], (times @ (w * w))[:, np.newaxis]
    errors, ew = times @ e.T, times @ (e * w).T
    differences, standard_errors = [], []
    for i in range(count - 1):
        dd = times @ np.square(e[i] - e[i + 1 :]).T
        rates = (errors[:, i : i + 1] - errors[:, i + 1 :]) / words
        spread = dd - 2 * rates * (ew[:, i : i + 1] - ew[:, i + 1 :]) + rates**2 * ww
        differences.append(rates)
        standard_errors.append(np.sqrt(np.maximum(spread * n / max(1, n - 1), 1.0)) / words)
    return np.hstack(differences), np.hstack(standard_errors)


def _of_resamples(e: Floats, w: Floats, seed: int, resamples: int, center: Floats, errors: Floats) -> Singles:
    """Distance of each pair in each resample from the sample in standard errors, shape (pairs, at most resamples).

    Resamples without a reference word have no rate and are left out.
    """
    parts = []
    for drawn in times_drawn(seed, resamples, len(w)):
        for times in np.array_split(drawn[drawn @ w > 0], 1 + len(drawn) * len(center) // CHUNK_CELLS):
            differences, standard_errors = _of_all_pairs(e, w, times)
            np.maximum(standard_errors, MIN_ERROR * errors, out=standard_errors)
            parts.append(np.abs((differences - center) / standard_errors).astype(np.float32).T)
    return np.hstack(parts)


def _of_normal_clusters(seed: int, resamples: int, systems: int, n: int) -> Singles:
    """Distances of simulated equal systems with normally distributed clusters; Student's |t| for two systems."""
    clusters = np.random.default_rng(seed).standard_normal((systems, resamples, n), dtype=np.float32)
    parts = []
    for i in range(systems - 1):
        differences = clusters[i] - clusters[i + 1 :]
        errors = differences.std(axis=2, ddof=1) / math.sqrt(n)
        parts.append(np.abs(differences.mean(axis=2)) / errors)
    return np.concatenate(parts)
