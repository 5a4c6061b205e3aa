"""A comparison in markdown.

Every text that comes from a server goes through `markdown`: names, transcripts and params are data, never
markup or terminal escapes.
"""

from __future__ import annotations

import re

from whisperbench.compare import report as content
from whisperbench.compare.difference import Difference
from whisperbench.compare.report import Report
from whisperbench.compare.tables import Cell, Linked, Section, Table, linked, side_by_side
from whisperbench.results.links import Links
from whisperbench.text import visible


def leaderboard_markdown(report: Report) -> str:
    """The short answer, one table per board, published results, what was left out and why."""
    main = report.boards[0]
    parts = ["# Whisper leaderboard", *_table(content.best(main))]
    parts += [f"**{markdown(subject)}:** {markdown(text)}" for subject, text in content.findings(main)]
    for board in report.boards:
        parts += [f"## {markdown(content.title(board))}", *_table(content.ranking(board, report.links))]
        parts.append(markdown(content.explanation(board)))
    parts += [part for section in report.after_the_boards for part in _section(section)]
    return "\n\n".join([*parts, markdown(report.summary)]) + "\n"


def difference_markdown(found: Difference, links: Links) -> str:
    """Params that differ, metrics, and the paired test of two runs."""
    a, b = (_cell(linked(run, links)) for run in (found.a, found.b))
    parts = [f"# From {a} to {b}", markdown(found.outcome)]
    if found.not_comparable:
        parts += [f"**{found.warning}**", *_table(found.incomparable_fields)]
    parts += [part for section in found.sections for part in _section(section)]
    return "\n\n".join([*parts, _cell(side_by_side((found.a, found.b), links))]) + "\n"


def markdown(text: str) -> str:
    """Text as itself: no markup, no HTML, no terminal escapes, one line."""
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", visible(text).replace("&", "&amp;").replace("<", "&lt;"))


def _section(section: Section) -> list[str]:
    table = _table(section.table) or [section.without_rows]
    return [part for part in (f"## {section.heading}", *table, markdown(section.note)) if part]


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
