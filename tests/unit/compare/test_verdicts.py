"""Verdicts on the WER of two runs and of a leaderboard, and the reasons why a comparison is impossible."""

from __future__ import annotations

import pytest

from tests.support.reports import BASE, LARGE, TURBO
from tests.support.stores import run_of, spoken, table_of
from whisperbench.compare.groups import grouped
from whisperbench.compare.verdicts import Verdicts, wer_difference
from whisperbench.results.record import RunRecord
from whisperbench.results.transcripts import read_table

MODELS = (LARGE, TURBO, BASE)
NO_COUNTS = table_of([("u0000", "s", None, "a", None, None), ("u0001", "s", None, "a", None, None)])


class TestTwoRuns:
    def test_a_difference_worked_out_by_hand(self) -> None:
        """3 errors more in 40 words are +7.5 points, and swapping the runs swaps the sign."""
        a, b = (read_table(spoken(errors, words=10)) for errors in ([1, 1, 0, 0], [2, 1, 1, 1]))
        for first, second, points in ((a, b, 7.5), (b, a, -7.5)):
            found = wer_difference(first, second, 0.2)
            assert not isinstance(found, str)
            assert found.difference == pytest.approx(points)

    @pytest.mark.parametrize(
        ("one", "other", "reason"),
        [
            (spoken([1, 1]), "{}", "no transcripts"),
            (spoken([1, 1]), spoken([1, 1, 1]), "different utterances (1 are in one run only)"),
            (spoken([1, 1]), spoken([1, 1], words=9), "different references (2 utterances)"),
            (spoken([1, 1]), table_of([("u0000", "s", "a", "a", 0, 20)] * 2), "an utterance occurs twice"),
            (spoken([1, 1]), NO_COUNTS, "different references (2 utterances)"),
            (NO_COUNTS, NO_COUNTS, "no references"),
        ],
    )
    def test_an_impossible_comparison_returns_its_reason(self, one: str, other: str, reason: str) -> None:
        """Reasons are different utterances, different or no references, and missing transcripts."""
        assert wer_difference(read_table(one), read_table(other), 0.2) == reason


class TestLeaderboard:
    def verdicts(self, *runs: RunRecord, errors: list[list[int]], named: RunRecord | None = None) -> Verdicts:
        (group,), _ = grouped(runs, "wer")
        stored = {run.run_id: read_table(spoken(each)) for run, each in zip(runs, errors, strict=True) if each}
        return Verdicts.of(group, stored, 0.2, next((s for s in group.systems if s.newest is named), None))

    def test_rows_are_compared_with_the_most_accurate_one(self) -> None:
        """Its own row has no verdict, and the limits hold for every pair of the table."""
        runs = [run_of(config, wer=wer) for config, wer in zip(MODELS, (5.0, 6.0, 10.0), strict=True)]
        errors = [[1] * 80, [1] * 64 + [2] * 16, [2] * 80]
        found = self.verdicts(*runs, errors=errors)
        outcomes = {system.newest.run_id: found.against(system) for system in found.places}
        assert outcomes[runs[0].run_id] is None
        worse = outcomes[runs[2].run_id]
        alone = wer_difference(read_table(spoken(errors[0])), read_table(spoken(errors[2])), 0.2)
        assert worse is not None
        assert not isinstance(alone, str)
        assert (worse.outcome, worse.difference) == ("worse", alone.difference)
        assert worse.high - worse.low > alone.high - alone.low

    def test_a_named_reference_narrows_the_intervals(self) -> None:
        """Two comparisons instead of three pairs."""
        runs = [run_of(config, wer=5.0) for config in MODELS]
        widths = []
        for named in (None, runs[1]):
            found = self.verdicts(*runs, errors=[[1] * 80, [1] * 64 + [2] * 16, [0, 2] * 40], named=named)
            by_run = {system.newest: system for system in found.places}
            verdict = found.against(by_run[runs[2]], by_run[runs[1]])
            assert verdict is not None
            widths.append(verdict.high - verdict.low)
        assert widths[1] < widths[0]

    def test_rows_without_transcripts_have_a_reason(self) -> None:
        """The reference is the most accurate row that has transcripts."""
        runs = [run_of(config, wer=wer) for config, wer in zip(MODELS, (5.0, 6.0, 10.0), strict=True)]
        found = self.verdicts(*runs, errors=[[], [1] * 80, [2] * 80])
        assert found.reference is not None
        assert found.reference.newest is runs[1]
        assert [(system.newest, reason) for system, reason in found.reasons.items()] == [(runs[0], "no transcripts")]
