"""Paired tests of two runs, and the reasons why a test is impossible."""

from __future__ import annotations

import pytest
from whisperbench.compare.paired_tests import paired_test

from tests.support.stores import spoken, table_of
from whisperbench.results.transcripts import StoredTranscripts, read_table


class TestPairedTest:
    def test_a_difference_worked_out_by_hand(self) -> None:
        """3 errors more in 40 words are +7.5 points, and swapping the runs swaps the sign."""
        a, b = (read_table(spoken(errors, words=10)) for errors in ([2, 1, 1, 1], [1, 1, 0, 0]))
        forth, back = paired_test(a, b, 32), paired_test(b, a, 32)
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
    def test_an_impossible_test_returns_its_reason(self, other: str | None, reason: str) -> None:
        """Reasons are different utterances, different references, and missing transcripts."""
        found = paired_test(read_table(spoken([1, 1])), None if other is None else read_table(other), 32)
        assert isinstance(found, str)
        assert found.startswith(reason)

    def test_a_single_utterance_is_never_significant(self) -> None:
        """One cluster has no variance estimate."""
        found = paired_test(read_table(spoken([9])), read_table(spoken([0])), 32)
        assert not isinstance(found, str)
        assert not found.significant

    def test_speakers_are_resampled_where_they_are_known(self) -> None:
        """One speaker is one cluster and never significant; without speakers each utterance is a cluster."""

        def errors_of(speakers: list[str | None], errors: int) -> StoredTranscripts | None:
            return read_table(table_of((f"u{i:02d}", who, "a", "b", errors, 20) for i, who in enumerate(speakers)))

        cases: list[list[str | None]] = [["s"] * 40, [None] * 40, ["s", None] * 20]
        one_speaker, unknown, half_known = (
            paired_test(errors_of(speakers, 2), errors_of(speakers, 1), 32) for speakers in cases
        )
        assert not isinstance(one_speaker, str)
        assert not isinstance(unknown, str)
        assert (one_speaker.significant, unknown.significant) == (False, True)
        assert half_known == unknown

    def test_counts_that_are_missing_cannot_be_paired(self) -> None:
        """A row without counts in both runs has no references."""
        stored = read_table(table_of([("u0", "s", None, "a", None, None), ("u1", "s", "a", "a", 0, 1)]))
        assert paired_test(stored, stored, 32) == "no references"

    def test_no_errors_at_all(self) -> None:
        """A WER of 0 against a WER of 0 is a tie."""
        found = paired_test(read_table(spoken([0] * 20)), read_table(spoken([0] * 20)), 32)
        assert not isinstance(found, str)
        assert (found.difference, found.significant) == (0.0, False)
