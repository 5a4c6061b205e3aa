"""Tables of plain text: markdown and HTML are two renderings of these."""

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
class Section:
    """A heading, its table (or a sentence where that has no rows), and a note below."""

    heading: str
    table: Table
    without_rows: str = ""
    note: str = ""


def number(value: float | None, digits: int = 2) -> str:
    return NOT_MEASURED if value is None else f"{value:,.{digits}f}"


def linked(run: RunRecord, links: Links) -> Linked:
    """A run by its name and the beginning of its id."""
    return Linked(f"{run.name} {run.run_id[:8]}", links.run(run))


def side_by_side(runs: Sequence[RunRecord], links: Links) -> Linked:
    """The transcripts of several runs."""
    return Linked("Transcripts side by side in MLflow", links.transcripts(runs))
