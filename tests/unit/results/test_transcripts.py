"""transcripts.json: what is written is read."""

from __future__ import annotations

import json

from tests.unit.results.test_run_data import transcripts
from whisperbench.measure.score import score
from whisperbench.results.transcripts import TRANSCRIPT_COLUMNS, StoredUtterance, read_table, transcript_table


def test_the_transcript_table_has_a_row_per_utterance() -> None:
    """Raw texts and counts; null counts where there is no reference."""
    table = transcript_table(transcripts(), score(transcripts(), "en", 1))
    assert table["columns"] == list(TRANSCRIPT_COLUMNS)
    assert table["data"][0] == ["u0", "the hat sat down", "the cat sat down", "0", 9.0, 1, 0, 0, 4]  # type: ignore[index]
    bare = transcript_table(transcripts(None), None)
    assert bare["data"][0] == ["u0", "the hat sat down", None, "0", 9.0, None, None, None, None]  # type: ignore[index]


def test_what_is_written_is_read() -> None:
    """Row by row, its errors together; nothing is known of them where there is no reference."""
    stored = read_table(json.dumps(transcript_table(transcripts(), score(transcripts(), "en", 1))))
    assert stored is not None
    assert stored[0] == StoredUtterance("u0", "0", 9.0, "the cat sat down", "the hat sat down", 1, 4)
    bare = read_table(json.dumps(transcript_table(transcripts(None), None)))
    assert bare is not None
    assert (bare[0].reference, bare[0].errors, bare[0].words) == (None, None, None)
