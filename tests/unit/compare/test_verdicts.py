"""Verdicts on the WER of two runs and of a leaderboard, and the reasons why a comparison is impossible."""

from __future__ import annotations

import pytest

from tests.support.stores import run_of, spoken, table_of
from whisperbench.compare.groups import Grouping
from whisperbench.compare.verdicts import Verdicts, loops_of, wer_difference
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.results.record import RunRecord
from whisperbench.results.transcripts import read_table

MODELS = [BenchmarkConfig(model=name) for name in ("large-v3", "large-v3-turbo", "base")]


class TestTwoRuns:
    def test_a_difference_worked_out_by_hand(self) -> None:
        """3 errors more in 40 words are +7.5 points, and swapping the runs swaps the sign."""
        a, b = (read_table(spoken(errors, words=10)) for errors in ([1, 1, 0, 0], [2, 1, 1, 1]))
        forth, back = wer_difference(a, b, 0.2), wer_difference(b, a, 0.2)
        assert not isinstance(forth, str)
        assert not isinstance(back, str)
        assert forth.difference == pytest.approx(7.5)
        assert back.difference == pytest.approx(-7.5)

    @pytest.mark.parametrize(
        ("other", "reason"),
        [
            (None, "no transcripts"),
            (spoken([1, 1, 1]), "different utterances (1 are in one run only)"),
            (spoken([1, 1], words=9), "different references (2 utterances)"),
            (table_of([("u0000", "s", "a", "a", 0, 20)] * 2), "an utterance occurs twice"),
            (
                table_of([("u0000", "s", None, "a", None, None), ("u0001", "s", None, "a", None, None)]),
                "different references",
            ),
            ("{}", "no transcripts"),
            ('{"columns": ["utt_id"], "data": [["u"]]}', "no transcripts"),
        ],
    )
    def test_an_impossible_comparison_returns_its_reason(self, other: str | None, reason: str) -> None:
        """Reasons are different utterances, different references, and missing transcripts."""
        found = wer_difference(read_table(spoken([1, 1])), None if other is None else read_table(other), 0.2)
        assert isinstance(found, str)
        assert found.startswith(reason)

    def test_counts_that_are_missing_cannot_be_paired(self) -> None:
        """A row without counts in both runs has no references."""
        stored = read_table(table_of([("u0", "s", None, "a", None, None), ("u1", "s", "a", "a", 0, 1)]))
        assert wer_difference(stored, stored, 0.2) == "no references"


class TestLeaderboard:
    def verdicts(self, *runs: RunRecord, errors: list[list[int]], named: RunRecord | None = None) -> Verdicts:
        (group,) = Grouping.of(runs, "wer").groups
        stored = {run.run_id: read_table(spoken(each)) for run, each in zip(runs, errors, strict=True) if each}
        reference = next((system for system in group.systems if system.newest is named), None)
        return Verdicts.of(group, stored, 0.2, reference)

    def test_rows_are_compared_with_the_most_accurate_one(self) -> None:
        """Its own row has no verdict, and the limits hold for every pair of the table."""
        runs = [run_of(config, wer=wer) for config, wer in zip(MODELS, (5.0, 6.0, 10.0), strict=True)]
        errors = [[1] * 80, [1] * 64 + [2] * 16, [2] * 80]
        found = self.verdicts(*runs, errors=errors)
        assert found.reference is not None
        assert found.reference.newest is runs[0]
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
        errors = [[1] * 80, [1] * 64 + [2] * 16, [0, 2] * 40]
        best, named = self.verdicts(*runs, errors=errors), self.verdicts(*runs, errors=errors, named=runs[1])
        assert named.reference is not None
        assert named.reference.newest is runs[1]
        system = next(each for each in named.places if each.newest is runs[2])
        pair = (
            next(each for each in best.places if each.newest is runs[2]),
            next(each for each in best.places if each.newest is runs[1]),
        )
        narrow, wide = named.against(system), best.against(*pair)
        assert narrow is not None
        assert wide is not None
        assert narrow.high - narrow.low < wide.high - wide.low

    def test_rows_without_transcripts_have_a_reason(self) -> None:
        """The reference is the most accurate row that has transcripts."""
        runs = [run_of(config, wer=wer) for config, wer in zip(MODELS, (5.0, 6.0, 10.0), strict=True)]
        found = self.verdicts(*runs, errors=[[], [1] * 80, [2] * 80])
        assert found.reference is not None
        assert found.reference.newest is runs[1]
        assert {system.newest.run_id: reason for system, reason in found.reasons.items()} == {
            runs[0].run_id: "no transcripts"
        }


def test_loops_are_shown_with_their_limit() -> None:
    """Counted in the typical run; an empty text if they were not counted."""
    (group,) = Grouping.of([run_of(metrics={"repetition_loops": 0.0, "utterances": 1_313.0})], "wer").groups
    assert loops_of(group.systems[0]) == "0 of 1,313 (at most 0.23 % of clips)"
    (group,) = Grouping.of([run_of()], "wer").groups
    assert loops_of(group.systems[0]) == ""
