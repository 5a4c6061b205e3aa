"""Verdicts on the WER of runs over the same utterances: of two runs, and of the systems of a leaderboard."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Self

from whisperbench.compare.groups import Group
from whisperbench.compare.systems import System
from whisperbench.results.transcripts import StoredTranscripts
from whisperbench.stats.paired import PairedDifference, PairedErrors


def wer_difference(a: StoredTranscripts | None, b: StoredTranscripts | None, margin: float) -> PairedDifference | str:
    """The difference b − a of the WER, or the reason why the runs cannot be compared utterance by utterance."""
    if reason := not_paired(a, b):
        return reason
    return _paired_errors([a or (), b or ()]).difference(1, 0, margin=margin)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Verdicts:
    """Differences of WER between the systems of one group, whose limits hold for all of them together.

    `places` are the rows of `errors` by system; `reasons` states for the other systems with a WER why they cannot be
    compared.  `named` is True if the user named the reference before looking at the results; then the limits hold for
    the comparisons with it, else for all pairs, so that the data may select any reference.
    """

    errors: PairedErrors | None
    places: Mapping[System, int]
    reasons: Mapping[System, str]
    reference: System | None
    named: bool
    margin: float

    @classmethod
    def of(
        cls,
        group: Group,
        transcripts: Mapping[str, StoredTranscripts | None],
        margin: float,
        named: System | None = None,
    ) -> Self:
        """Compare the systems of a group that have a WER with `named`, or with the most accurate one.

        Args:
            transcripts: transcripts by the id of the typical run of each system.
        """
        scored = group.by_wer
        stored = {system: transcripts.get(system.typical.run_id) for system in scored if len(scored) > 1}
        reference = named or next((s for s in scored if stored.get(s)), scored[0] if scored else None)
        reasons: dict[System, str] = {}
        paired: dict[System, StoredTranscripts] = {}
        for system, found in stored.items():
            if reference and (reason := not_paired(found, stored[reference])):
                reasons[system] = reason
            else:
                paired[system] = found or ()
        errors = _paired_errors(list(paired.values())) if paired else None
        places = {system: place for place, system in enumerate(paired)}
        return cls(errors, places, reasons, reference, named is not None, margin)

    def against(self, system: System, reference: System | None = None) -> PairedDifference | None:
        """The difference from a system, or from the group's reference; None without transcripts to compare."""
        other = reference or self.reference
        if self.errors is None or other is None or system is other or not {system, other} <= self.places.keys():
            return None
        named = self.named and other is self.reference
        return self.errors.difference(
            self.places[system],
            self.places[other],
            margin=self.margin,
            comparisons=self.errors.systems - 1 if named else self.errors.all_pairs,
        )


def not_paired(a: StoredTranscripts | None, b: StoredTranscripts | None) -> str | None:
    """The reason why two runs cannot be compared utterance by utterance, or None."""
    if not a or not b:
        return "no transcripts"
    of_a, of_b = ({utterance.utt_id: utterance for utterance in each} for each in (a, b))
    if len(of_a) != len(a) or len(of_b) != len(b):
        return "an utterance occurs twice"
    if different := of_a.keys() ^ of_b.keys():
        return f"different utterances ({len(different)} are in one run only)"
    if different_words := sum(x.units != of_b[utt_id].units for utt_id, x in of_a.items()):
        return f"different references ({different_words} utterances)"
    if any(None in (x.errors, x.units) for x in (*a, *b)) or not any(x.units for x in a):
        return "no references"
    return None


def _paired_errors(runs: Sequence[StoredTranscripts]) -> PairedErrors:
    """The errors of runs that can be paired, in the order of the utterance ids."""
    ordered = [sorted(run, key=lambda utterance: utterance.utt_id) for run in runs]
    return PairedErrors.of(
        [[utterance.errors or 0 for utterance in run] for run in ordered],
        [utterance.units or 0 for utterance in ordered[0]],
        [utterance.speaker for utterance in ordered[0]],
    )
