"""Writing and reading of transcripts.json, the MLflow table of a run's transcripts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from whisperbench.files import read_json
from whisperbench.measure.result import ErrorCounts, UtteranceResult

TABLE = "transcripts.json"
COUNTS = tuple(field.name for field in dataclasses.fields(ErrorCounts))
NOT_STORED = frozenset({"repeat", "finished_seconds", "counts"})
FIRST_COLUMNS = (
    *("utt_id", "hypothesis", "reference", "errors", "units", "substitutions", "deletions", "insertions"),
    *("character_errors", "characters", "speaker", "seconds", "latency_seconds"),
)
"""MLflow's artifact view groups runs by the first column and compares the second; error counts come early."""
COLUMNS = tuple(
    dict.fromkeys((*FIRST_COLUMNS, *(f.name for f in dataclasses.fields(UtteranceResult) if f.name not in NOT_STORED)))
)

StoredTranscripts = tuple[UtteranceResult, ...]


def transcript_table(results: Sequence[UtteranceResult]) -> dict[str, object]:
    """The content of transcripts.json: one row per utterance, with null as the counts if it has no reference."""
    rows = [
        [getattr(result.counts, name, None) if name in COUNTS else getattr(result, name) for name in COLUMNS]
        for result in results
    ]
    return {"columns": list(COLUMNS), "data": rows}


def read_table(text: str) -> StoredTranscripts | None:
    """The results in a transcripts.json, in order; None if the text is not such a table or a count is negative."""
    try:
        table = json.loads(text)
        rows = []
        for cells in table["data"]:
            row = dict(zip(table["columns"], cells, strict=True))
            row.pop("errors")
            counts = {name: row.pop(name) for name in COUNTS}
            if min(count or 0 for count in (*counts.values(), row["character_errors"], row["characters"])) < 0:
                return None
            row["counts"] = None if counts["units"] is None else counts
            rows.append(read_json(UtteranceResult, json.dumps(row).encode()))
        return tuple(rows)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
