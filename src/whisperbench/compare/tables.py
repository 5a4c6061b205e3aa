"""What a report is made of, in plain text: markdown, HTML and a terminal are renderings of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from whisperbench.results.links import Links
from whisperbench.results.run_record import RunRecord

NOT_MEASURED = "–"


@dataclasses.dataclass(frozen=True, slots=True)
class Linked:
    """A cell that leads somewhere."""

    text: str
    address: str


Cell = str | Linked


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """Headings, rows of text, and the places of the columns that hold numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Heading:
    """A line of text, some of which may lead somewhere."""

    cells: Sequence[Cell]
    level: int = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Paragraph:
    """A sentence or more, and what it is about."""

    cell: Cell
    subject: str = ""


Part = Heading | Paragraph | Table


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """A heading, its table (or a sentence where that has no rows), and a note below."""

    heading: str
    table: Table
    without_rows: str = ""
    note: str = ""

    @property
    def parts(self) -> list[Part]:
        shown: Part = self.table if self.table.rows else Paragraph(self.without_rows)
        heading: Part = Heading([self.heading])
        return [heading, shown, *([Paragraph(self.note)] if self.note else [])]


def number(value: float | None, digits: int = 2) -> str:
    return NOT_MEASURED if value is None else f"{value:,.{digits}f}"


def counted(count: int, noun: str) -> str:
    """`1 run`, `2,620 utterances`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def linked(run: RunRecord, links: Links) -> Linked:
    """A run by its name and the beginning of its id."""
    return Linked(f"{run.name} {run.run_id[:8]}", links.run(run))


def side_by_side(runs: Sequence[RunRecord], links: Links) -> Linked:
    """The transcripts of several runs."""
    return Linked("Transcripts side by side in MLflow", links.transcripts(runs))
