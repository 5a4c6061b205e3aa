"""A comparison in markdown, CSV and JSON.

Every text that comes from a server goes through `markdown` or `csv_cell`: names, transcripts and
params are data, never markup, formulas or terminal escapes.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re

from whisperbench.compare import tables
from whisperbench.compare.columns import COLUMNS, Links, Value, shown_columns
from whisperbench.compare.difference import Difference
from whisperbench.compare.leaderboard import Board, Row
from whisperbench.compare.published import SOURCE
from whisperbench.compare.tables import Cell, Linked, Report, Table
from whisperbench.text import visible


def leaderboard_markdown(report: Report) -> str:
    """The short answer, one table per board, published results, what was left out and why."""
    main = report.boards[0]
    parts = ["# Whisper leaderboard", *_table(tables.best(main))]
    parts += [f"**{markdown(subject)}:** {markdown(text)}" for subject, text in tables.findings(main)]
    for board in report.boards:
        parts += [f"## {markdown(tables.title(board))}", *_table(_rows(board, report.links))]
        parts.append(markdown(tables.explanation(board)))
    if report.rank_changes is not None:
        changes = _table(tables.rank_changes(report.rank_changes))
        parts += ["## What rescoring changes", *(changes or ["No rank changes."])]
    if report.beside:
        if settings := _table(tables.published_settings(report)):
            parts += ["## Published settings, GPU by GPU, reqs/sec", *settings]
        parts += ["## Published results, not ranked", *_table(tables.published(report.beside)), f"Source: {SOURCE}."]
    if report.left_out:
        parts += ["## Left out", *_table(tables.left_out(report.left_out, report.links))]
    parts.append(markdown(report.summary))
    return "\n\n".join(parts) + "\n"


def difference_markdown(found: Difference, links: Links) -> str:
    """Params that differ, metrics, and the paired test of two runs."""
    a, b = (_cell(run) for run in tables.compared(found, links))
    parts = [f"# From {a} to {b}", markdown(tables.outcome(found.test))]
    if found.not_comparable:
        parts += [f"**{tables.warning(found)}**", *_table(tables.incomparable_fields(found))]
    parts += ["## Params that differ", *(_table(tables.params(found)) or ["None."])]
    parts += ["## Metrics", *_table(tables.metrics(found)), _cell(tables.side_by_side((found.a, found.b), links))]
    return "\n\n".join(parts) + "\n"


def leaderboard_csv(report: Report) -> str:
    """One line per row of every board, all columns, numbers unrounded."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["board", *(column.name for column in COLUMNS), "url"])
    for board in report.boards:
        for row in board.rows:
            values = [csv_cell(column.value(row)) for column in COLUMNS]
            writer.writerow([csv_cell(tables.title(board)), *values, report.links.run(row.configuration.newest)])
    return file.getvalue()


def leaderboard_json(report: Report) -> str:
    """Every board with its key, its rows and their runs; published rows; what was left out."""
    boards = [
        {
            "title": tables.title(board),
            "key": dict(board.group.fields),
            "sort": board.sort,
            "rows": [_as_json(row, report.links) for row in board.rows],
        }
        for board in report.boards
    ]
    beside = [
        {
            **dataclasses.asdict(each.published),
            "measured_run_id": each.configuration.newest.run_id if each.configuration else None,
            "measured_reqs_per_sec": each.measured_reqs_per_sec,
            "ratio": each.ratio,
            "caveats": each.caveats,
        }
        for each in report.beside
    ]
    changes = report.rank_changes
    body = {
        "boards": boards,
        "published": {"source": SOURCE, "rows": beside},
        "left_out": [{"run_id": e.run.run_id, "name": e.run.name, "reason": e.reason} for e in report.left_out],
        "rank_changes": None if changes is None else [dataclasses.asdict(change) for change in changes],
    }
    return json.dumps(body, indent=1, allow_nan=False) + "\n"


def markdown(text: str) -> str:
    """Text as itself: no markup, no HTML, no terminal escapes, one line."""
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", visible(text).replace("&", "&amp;").replace("<", "&lt;"))


def csv_cell(value: Value) -> Value:
    """A value that no spreadsheet takes for a formula."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _rows(board: Board, links: Links) -> Table:
    columns = shown_columns(board)
    rows = []
    for row in board.rows:
        texts = [(column, column.text(row)) for column in columns]
        address = links.run(row.configuration.newest)
        rows.append([Linked(text, address) if column.link else text for column, text in texts])
    numeric = frozenset(place for place, column in enumerate(columns) if column.numeric)
    return Table([column.heading for column in columns], rows, numeric)


def _table(table: Table) -> list[str]:
    """A table in markdown; nothing of a table without rows."""
    if not table.rows:
        return []
    marks = ["--:" if place in table.numeric else "---" for place in range(len(table.headings))]
    headings = [markdown(heading) for heading in table.headings]
    lines = [headings, marks, *([_cell(cell) for cell in row] for row in table.rows)]
    return ["\n".join(f"| {' | '.join(line)} |" for line in lines)]


def _cell(cell: Cell) -> str:
    return f"[{markdown(cell.text)}]({cell.address})" if isinstance(cell, Linked) else markdown(cell)


def _as_json(row: Row, links: Links) -> dict[str, object]:
    runs = [{"run_id": run.run_id, "name": run.name, "url": links.run(run)} for run in row.configuration.runs]
    return {**{column.name: column.value(row) for column in COLUMNS}, "runs": runs}
