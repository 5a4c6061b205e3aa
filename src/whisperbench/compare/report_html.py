"""leaderboard.html and difference.html: self-contained pages that need no server and work without JavaScript.

The page's policy runs only its own script.
"""

from __future__ import annotations

from collections.abc import Mapping

from whisperbench.compare import report as content
from whisperbench.compare.bar_charts import MOST_BARS, charts
from whisperbench.compare.columns import Column, shown_columns
from whisperbench.compare.difference import Difference
from whisperbench.compare.leaderboard import Board, Row
from whisperbench.compare.pareto_plot import pareto_svg
from whisperbench.compare.report import Report
from whisperbench.compare.tables import linked, side_by_side
from whisperbench.results.links import Links
from whisperbench.results.pages import render


def leaderboard_html(report: Report) -> str:
    """The short answer, the boards with their plots, and the other sections of a report."""
    main = report.boards[0]
    return render(
        "leaderboard.html.jinja",
        data=content.data(main.group),
        best=content.best(main, report.links),
        findings=content.findings(main),
        optimal=content.optimal(main),
        boards=[_board(board, report) for board in report.boards],
        most_bars=MOST_BARS,
        clips=report.clips,
        clips_of=content.on_gpu(main.rows[0]),
        sections=report.after_the_boards,
        summary=report.summary,
    )


def difference_html(found: Difference, links: Links, audio: Mapping[str, str]) -> str:
    """Two runs: what differs, and the utterances that changed most, both aligned with their reference.

    `audio`: addresses of clips by the utterance's id, of those that one of the runs holds.
    """
    return render(
        "difference.html.jinja",
        found=found,
        runs=[linked(run, links) for run in (found.a, found.b)],
        side_by_side=side_by_side((found.a, found.b), links),
        audio=audio,
    )


def _board(board: Board, report: Report) -> dict[str, object]:
    columns = shown_columns(board)
    plots = (
        pareto_svg(board, report.published, report.links),
        pareto_svg(board, report.published, report.links, width=380, height=340, kind="narrow"),
    )
    return {
        "title": content.title(board),
        "explanation": content.explanation(board),
        "plots": [plot for plot in plots if plot and len(board.rows) > 1],
        "gpus": sorted({row.system.gpu for row in board.rows}),
        "columns": columns,
        "rows": [
            (row, [(content.cell(column, row, report.links), _sorted_by(column, row)) for column in columns])
            for row in board.rows
        ],
        "side_by_side": side_by_side([row.system.typical for row in board.rows], report.links),
        "charts": charts(board),
    }


def _sorted_by(column: Column, row: Row) -> str:
    """The value that a cell is sorted by; nothing where it was not measured."""
    value = column.value(row)
    if value is None or (column.numeric and isinstance(value, str) and not value.isdecimal()):
        return ""
    return str(value)
