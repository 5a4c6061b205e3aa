"""A leaderboard for programs: CSV and JSON, all columns, numbers unrounded."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

from whisperbench.compare.columns import COLUMNS, Value
from whisperbench.compare.leaderboard import Row
from whisperbench.compare.published import SOURCE
from whisperbench.compare.report import Report, title
from whisperbench.results.links import Links
from whisperbench.text import visible


def leaderboard_csv(report: Report) -> str:
    """One line per row of every board, all columns, numbers unrounded."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["board", *(column.name for column in COLUMNS), "url"])
    for board in (*report.boards, *report.alone):
        for row in board.rows:
            values = [csv_cell(column.value(row)) for column in COLUMNS]
            writer.writerow([csv_cell(title(board)), *values, report.links.run(row.system.newest)])
    return file.getvalue()


def leaderboard_json(report: Report) -> str:
    """Every board (also those of one row) with its key, its rows and their runs; published rows; what was left out."""
    boards = [
        {
            "title": title(board),
            "key": dict(board.group.fields),
            "sort": board.sort,
            "rows": [_as_json(row, report.links) for row in board.rows],
        }
        for board in (*report.boards, *report.alone)
    ]
    published = [
        {
            **dataclasses.asdict(each.published),
            "measured_run_id": each.system.newest.run_id if each.system else None,
            "measured_reqs_per_sec": each.measured_reqs_per_sec,
            "ratio": each.ratio,
            "caveats": each.caveats,
        }
        for each in report.published
    ]
    changes = report.rank_changes
    body = {
        "boards": boards,
        "published": {"source": SOURCE, "rows": published},
        "left_out": [{"run_id": e.run.run_id, "name": e.run.name, "reason": e.reason} for e in report.left_out],
        "rank_changes": None if changes is None else [dataclasses.asdict(change) for change in changes],
    }
    return json.dumps(body, indent=1, allow_nan=False) + "\n"


def csv_cell(value: Value) -> Value:
    """A value that no spreadsheet takes for a formula."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _as_json(row: Row, links: Links) -> dict[str, object]:
    runs = [{"run_id": run.run_id, "name": run.name, "url": links.run(run)} for run in row.system.runs]
    return {**{column.name: column.value(row) for column in COLUMNS}, "runs": runs}
