"""A report or a difference as markdown, HTML, CSV and JSON.

Names, transcripts and params from a server are escaped, so that they are never interpreted as markup or formulas.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Mapping

from whisperbench.compare.answer import choices, table
from whisperbench.compare.columns import COLUMNS, Column, Value, shown_columns
from whisperbench.compare.difference import Difference, added_errors
from whisperbench.compare.document import Cell, Heading, Linked, Part, Table, side_by_side, versions_of
from whisperbench.compare.groups import group_fields
from whisperbench.compare.plot import pareto_svg
from whisperbench.compare.published import Counterpart
from whisperbench.compare.rank import Leaderboard, Row, best_settings
from whisperbench.compare.report import Report, cell, data, title
from whisperbench.compare.systems import System
from whisperbench.results.links import Links
from whisperbench.results.pages import render
from whisperbench.results.record import RunRecord
from whisperbench.text import escape_control, markdown


def as_markdown(parts: Iterable[Part]) -> str:
    return "\n\n".join(map(_markdown, parts)) + "\n"


def _markdown(part: Part) -> str:
    match part:
        case Heading(cells, level):
            return f"{'#' * level} {''.join(map(_cell, cells))}"
        case Table(headings, rows, numeric):
            marks = ["--:" if place in numeric else "---" for place in range(len(headings))]
            lines = [list(map(markdown, headings)), marks, *(list(map(_cell, row)) for row in rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return _cell(part)


def _cell(content: Cell) -> str:
    if isinstance(content, Linked):
        return f"[{markdown(content.text)}]({content.address})"
    return markdown(content if isinstance(content, str) else content.text)


def leaderboard_html(report: Report) -> str:
    """The content of leaderboard.html, which is self-contained and readable without JavaScript."""
    main = report.every[0]
    best = best_settings(main)
    runs = [run for board in report.boards for row in board.rows for run in row.system.runs]
    return render(
        "leaderboard.html.jinja",
        report=report,
        heading=data(main.group),
        sentence=choices(main, best),
        best=table(main, best),
        plot=pareto_svg(main, report.published) if len(main.rows) > 1 else None,
        boards=[_board_html(board, report.links) for board in report.boards],
        first=main.rows[0].system,
        facts={**report.origin, "Versions": versions_of(runs)},
    )


def _board_html(board: Leaderboard, links: Links) -> dict[str, object]:
    columns = shown_columns(board)
    return {
        "title": title(board),
        "differs": board.differs,
        "gpus": sorted({row.system.gpu for row in board.rows}),
        "columns": columns,
        "rows": [(row, [(cell(each, row, links), _sort_value(each, row)) for each in columns]) for row in board.rows],
        "side_by_side": side_by_side([row.system.typical for row in board.rows], links),
    }


def _sort_value(column: Column, row: Row) -> str:
    """The value by which a cell is sorted; empty if it was not measured, or is a word like `auto` among numbers."""
    value = column.value(row)
    text = "" if value is None else str(value)
    return "" if column.numeric and text.isalpha() else text


def difference_html(found: Difference, links: Links, audio: Mapping[str, str], origin: Mapping[str, str]) -> str:
    """The content of difference.html: the differences and the utterances that changed most, with alignments.

    `audio` holds data: URLs of WAV files by utterance id, `origin` the command, time and store.
    """
    return render(
        "difference.html.jinja",
        found=found,
        parts=found.parts(links),
        audio=audio,
        unit=System((found.a,)).unit,
        added_errors=added_errors,
        facts={**origin, "Versions": versions_of((found.a, found.b))},
    )


def leaderboard_csv(report: Report) -> str:
    """One line per row of every leaderboard, with all columns and unrounded numbers."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["board", *(column.name for column in COLUMNS), "url"])
    for board in report.every:
        for row in board.rows:
            values = [csv_cell(column.value(row)) for column in COLUMNS]
            writer.writerow([csv_cell(title(board)), *values, report.links.run(row.system.newest)])
    return file.getvalue()


def csv_cell(value: Value) -> Value:
    """A value for CSV; a string that a spreadsheet would evaluate as a formula is quoted."""
    if not isinstance(value, str):
        return value
    text = escape_control(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def leaderboard_json(report: Report) -> str:
    """Every leaderboard with key, rows and runs; the published results, the unranked runs and the rank changes."""
    body = {
        "boards": [_board_json(board, report.links) for board in report.every],
        "published": [_published_json(each) for each in report.published],
        "without_speed": _runs_json(report.without_speed),
        "left_out": _runs_json(report.left_out),
        "rank_changes": None if report.rank_changes is None else list(map(dataclasses.asdict, report.rank_changes)),
    }
    return json.dumps(body, indent=1, allow_nan=False) + "\n"


def _board_json(board: Leaderboard, links: Links) -> dict[str, object]:
    rows = []
    for row in board.rows:
        runs = [{"run_id": run.run_id, "name": run.name, "url": links.run(run)} for run in row.system.runs]
        rows.append({**{column.name: column.value(row) for column in COLUMNS}, "runs": runs})
    return {"title": title(board), "key": group_fields(board.group.newest), "sort": board.sort, "rows": rows}


def _runs_json(runs: Iterable[tuple[RunRecord, str]]) -> list[dict[str, str]]:
    return [{"run_id": run.run_id, "name": run.name, "reason": reason} for run, reason in runs]


def _published_json(each: Counterpart) -> dict[str, object]:
    return {
        **dataclasses.asdict(each.published),
        "measured_run_id": each.system and each.system.newest.run_id,
        "measured_reqs_per_sec": each.system and each.system.median("reqs_per_sec"),
        "ratio": each.ratio,
        "best_run_id": each.best and each.best.newest.run_id,
        "best_ratio": each.published.ratio_of(each.best),
        "ratio_caveats": each.caveats,
    }
