"""transcripts.json: its columns, and what is written is read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tests.support.bundles import journal_in, result
from whisperbench.measure.result import UtteranceResult
from whisperbench.measure.score import score
from whisperbench.results.recording import read_journal
from whisperbench.results.transcripts import COLUMNS, read_table, transcript_table


def test_columns() -> None:
    """The first two drive MLflow's view of artifacts; each field of a result has its place."""
    assert (
        *("utt_id", "hypothesis", "reference", "errors", "units", "substitutions", "deletions", "insertions"),
        *("character_errors", "characters", "speaker", "seconds", "latency_seconds", "tokens", "windows"),
        *("repetition_loops", "retried_windows"),
    ) == COLUMNS
    left_out = {field.name for field in dataclasses.fields(UtteranceResult)} - set(COLUMNS)
    assert left_out == {"repeat", "finished_seconds", "counts"}


@pytest.mark.parametrize("reference", ["a word", "", None])
def test_transcripts_round_trip(tmp_path: Path, reference: str | None) -> None:
    """Journal, score, table, and back: equal results, except for what belongs to one pass."""
    given = [
        result(0, "the word", reference=reference, seconds=10.4350625, finished_seconds=1.25, repeat=2),
        result(1, "é \u202e, and more", reference=reference, speaker=None, latency_seconds=None, retried_windows=1),
    ]
    with journal_in(tmp_path) as journal:
        for each in given:
            journal.append(each)
        kept = read_journal(journal.directory)
    assert kept == tuple(given)
    results = kept if reference is None else score(kept, "en").results
    stored = read_table(json.dumps(transcript_table(results)))
    assert stored == tuple(dataclasses.replace(each, repeat=0, finished_seconds=None) for each in results)
    assert stored is not None
    assert stored[0].errors == {"a word": 1, "": 2, None: None}[reference]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"columns": [], "data": [1]}', '{"columns": ["utt_id"], "data": [["u", 1]]}', "[" * 9999]
)
def test_a_text_that_is_not_a_table(text: str) -> None:
    """Neither of JSON nor with the columns of a run."""
    assert read_table(text) is None
