"""Parts of a report in markdown.

Every text that comes from a server goes through `markdown`: names, transcripts and params are data, never
markup or terminal escapes.
"""

from __future__ import annotations

from collections.abc import Iterable

from whisperbench.compare.tables import Cell, Heading, Linked, Paragraph, Part, Table
from whisperbench.text import markdown


def as_markdown(parts: Iterable[Part]) -> str:
    """A report or a difference, ready for a file."""
    return "\n\n".join(_part(part) for part in parts) + "\n"


def _part(part: Part) -> str:
    match part:
        case Heading(cells, level):
            return f"{'#' * level} {''.join(map(_cell, cells))}"
        case Paragraph(cell, subject):
            return f"**{markdown(subject)}:** {_cell(cell)}" if subject else _cell(cell)
        case Table():
            return _table(part)


def _table(table: Table) -> str:
    marks = ["--:" if place in table.numeric else "---" for place in range(len(table.headings))]
    headings = [markdown(heading) for heading in table.headings]
    lines = [headings, marks, *([_cell(cell) for cell in row] for row in table.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    return f"[{markdown(cell.text)}]({cell.address})" if isinstance(cell, Linked) else markdown(cell)
