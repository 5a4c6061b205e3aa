"""Differences of error rates on the same utterances, with a verdict that is read off one interval.

The difficulty of an utterance, which all systems share, cancels out in the difference of the errors per cluster.  Two
systems are the same within a margin if the whole interval of their difference lies within ±margin, which is equivalent
to two one-sided tests (Schuirmann, "A comparison of the two one-sided tests procedure and the power approach", Journal
of Pharmacokinetics and Biopharmaceutics 15, 1987).  A verdict is wrong only if its interval misses the true
difference, so one level bounds the errors of all verdicts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, Self

from whisperbench.stats.clusters import Counts, Floats, cluster_totals, degrees_of_freedom, standard_error, two_sided_t

Outcome = Literal["same", "worse", "better", "not worse", "undecided"]

MIN_SPEAKERS = 10
"""From this number on, speakers are the clusters.  With fewer, utterances are, and the verdict is on these speakers."""
MIN_ERRORS = 10
"""A margin of fewer errors in the whole set cannot be shown to be kept, because one repetition loop would exceed it."""
POWER_QUANTILE = 1.2816
"""Normal quantile of 0.9: with `words_needed`, two equal systems are called the same with a probability of 80 %."""


@dataclasses.dataclass(frozen=True, slots=True)
class PairedDifference:
    """Error rate of a system minus that of a reference, with 95 % limits, in percentage points.

    `scope` describes the clusters: `20 speakers`, `367 utterances of these 3 speakers alone`.  `words_needed` is the
    number of reference words with which two equal systems are called the same in 80 % of cases; None if unknown.
    """

    difference: float
    low: float
    high: float
    outcome: Outcome
    margin: float
    scope: str
    words_needed: int | None

    def statement(self, unit: str = "words") -> str:
        """`same within 0.2 points`, `worse by 0.42 to 1.07 points`, or what is needed for a decision.

        Args:
            unit: what was counted, words or characters.
        """
        match self.outcome:
            case "same":
                return f"same within {self.margin:g} points"
            case "worse":
                return f"worse by {self.low:.2f} to {self.high:.2f} points"
            case "better":
                return f"better by {-self.high:.2f} to {-self.low:.2f} points"
            case "not worse":
                return f"not worse by more than {self.margin:g} points"
        needed = f"; if they are equal, about {self.words_needed:,} {unit} show it" if self.words_needed else ""
        return f"undecided within {self.margin:g} points{needed}"

    @property
    def keeps_margin(self) -> bool:
        """Whether the system is shown not to be worse than the reference by more than the margin."""
        return self.outcome in ("same", "better", "not worse")

    @property
    def limits(self) -> str:
        """`-0.10 to +0.16`; an empty string without limits."""
        return f"{self.low:+.2f} to {self.high:+.2f}" if math.isfinite(self.low) else ""

    @property
    def figures(self) -> str:
        """`difference +0.03, -0.10 to +0.16 points (95 %, over 20 speakers)`."""
        limits = f", {self.limits} points (95 %, over {self.scope})" if self.limits else f" points (over {self.scope})"
        return f"difference {self.difference:+.2f}{limits}"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PairedErrors:
    """Errors of K systems and reference words per cluster, shapes (K, clusters) and (clusters,)."""

    errors: Floats
    words: Floats
    scope: str

    @classmethod
    def of(cls, errors: Sequence[Counts], words: Counts, speakers: Sequence[str | None]) -> Self:
        """Sum the errors of each cluster: speakers if there are MIN_SPEAKERS or more, else utterances.

        Args:
            errors: errors of each utterance, shape (n,), of each of K systems.
            words: reference words of each utterance, shape (n,).
            speakers: speaker of each utterance, or None if it is unknown, length n.

        Raises:
            ValueError: the sizes do not match, or there are no reference words, so that no rates exist.
        """
        known = [speaker for speaker in speakers if speaker is not None]
        count, complete = len(set(known)), len(known) == len(speakers)
        if complete and count >= MIN_SPEAKERS:
            clusters, scope = known, f"{count} speakers"
        else:
            clusters = [str(number) for number in range(len(speakers))]
            these = "this speaker" if count == 1 else f"these {count} speakers"
            scope = f"{len(speakers):,} utterances" + (f" of {these} alone" if complete else ", speakers unknown")
        e, w = cluster_totals(errors, words, clusters)
        if not w.any():
            raise ValueError("words: 0 reference words in all, so no error rates can be compared")
        return cls(e, w, scope)

    @property
    def systems(self) -> int:
        return len(self.errors)

    @property
    def all_pairs(self) -> int:
        """Number of comparisons if the data select the reference: every pair of systems."""
        return max(1, self.systems * (self.systems - 1) // 2)

    def difference(self, system: int, reference: int, *, margin: float, comparisons: int = 1) -> PairedDifference:
        """Compare a system with a reference; the limits hold for all of `comparisons` together (Bonferroni)."""
        total = float(self.words.sum())
        d = self.errors[system] - self.errors[reference]
        t = two_sided_t(degrees_of_freedom(self.words), comparisons=comparisons)
        error = standard_error(d, self.words, systems=2)
        rate, half = 100 * float(d.sum()) / total, 100 * t * error
        needed = None
        if math.isfinite(half):
            for_power = total * (100 * error * (t + POWER_QUANTILE) / margin) ** 2
            needed = max(1_000, round(max(for_power, MIN_ERRORS * 100 / margin) / 1_000) * 1_000)
        outcome = outcome_of(rate - half, rate + half, margin, provable=margin * total >= 100 * MIN_ERRORS)
        return PairedDifference(rate, rate - half, rate + half, outcome, margin, self.scope, needed)


def outcome_of(low: float, high: float, margin: float, *, provable: bool) -> Outcome:
    """The outcome of an interval; `provable`: the set is large enough to show that the margin is kept."""
    if provable and -margin <= low and high <= margin:
        return "same"
    if low > 0:
        return "worse"
    if high < 0:
        return "better"
    return "not worse" if provable and high <= margin else "undecided"
