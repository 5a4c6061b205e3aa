"""Parts of a report, from which markdown, HTML and terminal tables are rendered."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal

from whisperbench import __version__
from whisperbench.results.links import Links
from whisperbench.results.record import RunRecord

NOT_MEASURED = "–"


@dataclasses.dataclass(frozen=True, slots=True)
class Linked:
    """A link: its text and its URL."""

    text: str
    address: str


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """A change of a metric in percent, and the better direction if there is one."""

    percent: float
    better_if: Literal["higher", "lower"] | None

    @property
    def verdict(self) -> Literal["better", "worse", ""]:
        if self.better_if is None or not round(self.percent, 1):
            return ""
        return "better" if (self.percent > 0) is (self.better_if == "higher") else "worse"

    @property
    def text(self) -> str:
        """`↑ +25.0 % better`, `↓ -3.2 %`, `+0.0 %`."""
        percent = round(self.percent, 1)
        arrow = "↑ " if percent > 0 else "↓ " if percent else ""
        return f"{arrow}{percent + 0:+.1f} % {self.verdict}".rstrip()


Cell = str | Linked | Change


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


Part = Heading | Table | Cell
"""A part of a report; a cell is a paragraph."""


def section(heading: str, table: Table, *, without_rows: str = "", note: str = "") -> list[Part]:
    """A heading, a table and a note below it; without rows, `without_rows` in place of the table, or nothing."""
    if not table.rows:
        return [Heading([heading]), without_rows] if without_rows else []
    return [Heading([heading]), table, *([note] if note else [])]


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


def versions_of(runs: Iterable[RunRecord]) -> str:
    """`whisperbench 0.1.0; vllm 0.32.0; torch 2.13.0; driver 580.1; normaliser whisper-english/0.1.15`."""
    found: dict[str, set[str]] = {}
    for run in runs:
        named = {run.params.get("engine", "engine"): "engine_version", "torch": "torch_version"}
        named |= {"driver": "cuda_driver", "normaliser": "normalizer"}
        for name, param in named.items():
            if param in run.params:
                found.setdefault(name, set()).add(run.params[param].partition("+")[0])
    versions = (f"{name} {' and '.join(sorted(values))}" for name, values in found.items())
    return "; ".join([f"whisperbench {__version__}", *versions])
