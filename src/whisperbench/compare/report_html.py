"""leaderboard.html and difference.html: self-contained pages that need no server and work without JavaScript.

The page's policy runs only its own script.
"""

from __future__ import annotations

from whisperbench.compare import report as content
from whisperbench.compare.bar_charts import charts
from whisperbench.compare.columns import Column, shown_columns
from whisperbench.compare.difference import Difference
from whisperbench.compare.leaderboard import Board, Row
from whisperbench.compare.pareto_plot import colour, gpus_of, pareto_svg, points_of
from whisperbench.compare.report import Report
from whisperbench.compare.tables import linked, side_by_side
from whisperbench.results.links import Links
from whisperbench.results.pages import render


def leaderboard_html(report: Report) -> str:
    """The short answer, the boards with their plots, and the other sections of a report."""
    main = report.boards[0]
    return render(
        "leaderboard.html.jinja",
        best=content.best(main),
        findings=content.findings(main),
        boards=[_board(board, report) for board in report.boards],
        sections=report.after_the_boards,
        summary=report.summary,
    )


def difference_html(found: Difference, links: Links) -> str:
    """Two runs: what differs, and the utterances that changed most, both aligned with their reference."""
    return render(
        "difference.html.jinja",
        found=found,
        runs=[linked(run, links) for run in (found.a, found.b)],
        side_by_side=side_by_side((found.a, found.b), links),
    )


def _board(board: Board, report: Report) -> dict[str, object]:
    columns, gpus = shown_columns(board), gpus_of(board)
    plots = (
        pareto_svg(board, report.published),
        pareto_svg(board, report.published, width=380, height=340, kind="narrow"),
    )
    return {
        "title": content.title(board),
        "explanation": content.explanation(board),
        "plots": [plot for plot in plots if plot],
        "gpus": [(gpu, colour(board, gpu)) for gpu in gpus],
        "has_published": any(point.series is None for point in points_of(board, report.published)),
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
