"""Parts of a report, from which markdown, HTML and terminal tables are rendered."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from whisperbench.results.links import Links
from whisperbench.results.record import RunRecord

NOT_MEASURED = "–"


@dataclasses.dataclass(frozen=True, slots=True)
class Linked:
    """A link: its text and its URL."""

    text: str
    address: str


Cell = str | Linked


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """Headings with the most important first, rows of cells, and the indices of columns.

    `numeric` columns hold numbers, `required` ones are shown on the narrowest terminal.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric: frozenset[int] = frozenset()
    required: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Heading:
    cells: Sequence[Cell]
    level: int = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Paragraph:
    cell: Cell
    subject: str = ""


Part = Heading | Paragraph | Table


def section(heading: str, table: Table, *, without_rows: str = "", note: str = "") -> list[Part]:
    """A heading, a table and a note below the table.

    If the table has no rows, `without_rows` replaces it, or the section is omitted if `without_rows` is empty.
    """
    if not table.rows:
        return [Heading([heading]), Paragraph(without_rows)] if without_rows else []
    return [Heading([heading]), table, *([Paragraph(note)] if note else [])]


def number(value: float | None, digits: int = 2) -> str:
    return NOT_MEASURED if value is None else f"{value:,.{digits}f}"


def counted(count: int, noun: str) -> str:
    """`1 run`, `2,620 utterances`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def linked(run: RunRecord, links: Links) -> Linked:
    """A link to a run: its name and the first digits of its id."""
    return Linked(f"{run.name} {run.run_id[:8]}", links.run(run))


def side_by_side(runs: Sequence[RunRecord], links: Links) -> Linked:
    return Linked("Transcripts side by side in MLflow", links.transcripts(runs))
