"""The transcripts of a run as a table, the artifact transcripts.json: how it is written and how it is read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from whisperbench.measure.score import Score
from whisperbench.measure.timing import Transcript

TABLE = "transcripts.json"
COUNTS = ("substitutions", "deletions", "insertions", "words")
TRANSCRIPT_COLUMNS = ("utt_id", "hypothesis", "reference", "speaker", "seconds", *COUNTS)
"""MLflow's view of several runs groups by the first and compares the second until somebody chooses others."""


@dataclasses.dataclass(frozen=True, slots=True)
class StoredUtterance:
    """One row of transcripts.json; `errors` and `words` are None where there was no reference."""

    utt_id: str
    speaker: str | None
    seconds: float
    reference: str | None
    hypothesis: str
    errors: int | None
    words: int | None


StoredTranscripts = tuple[StoredUtterance, ...]


def transcript_table(transcripts: Sequence[Transcript], score: Score | None) -> dict[str, object]:
    """transcripts.json: an MLflow table, one row per utterance; without a reference its counts are null."""
    scored = {each.utt_id: each.counts for each in score.utterances} if score else {}
    rows = []
    for each in transcripts:
        found = scored.get(each.utt_id)
        counts = [getattr(found, name, None) for name in COUNTS]
        rows.append([each.utt_id, each.hypothesis, each.reference, each.speaker, round(each.seconds, 3), *counts])
    return {"columns": list(TRANSCRIPT_COLUMNS), "data": rows}


def read_table(text: str) -> StoredTranscripts | None:
    """transcripts.json as utterances in its order; None where it is not such a table."""
    try:
        table = json.loads(text)
        columns = {name: place for place, name in enumerate(table["columns"])}
        return tuple(_utterance({name: row[place] for name, place in columns.items()}) for row in table["data"])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None


def _utterance(row: Mapping[str, Any]) -> StoredUtterance:
    *kinds, words = (row[name] for name in COUNTS)
    known = words is not None and None not in kinds
    return StoredUtterance(
        utt_id=str(row["utt_id"]),
        speaker=None if row["speaker"] is None else str(row["speaker"]),
        seconds=float(row["seconds"]),
        reference=None if row["reference"] is None else str(row["reference"]),
        hypothesis=str(row["hypothesis"]),
        errors=int(sum(kinds)) if known else None,
        words=int(words) if known else None,
    )
