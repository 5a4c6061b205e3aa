"""What a reader asks of several engines or GPUs: which engine on this GPU, which GPU for this engine."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter

from whisperbench.compare.bar_charts import Chart, charts
from whisperbench.compare.leaderboard import Board, Row
from whisperbench.compare.systems import System
from whisperbench.compare.tables import Section, Table, number

ASKED = (("Which engine on {}: {}", "gpu", "engine"), ("Which GPU for {}: {}", "engine", "gpu"))
"""What is asked, of what that is the same, by what differs."""
HEADINGS = ("reqs/sec", "of the first", "RTFx", "WER %")


@dataclasses.dataclass(frozen=True, slots=True)
class Question(Section):
    """A question with its table, and charts of all that was measured for it: a colour for each answer."""

    charts: Sequence[Chart] = ()


def questions(boards: Iterable[Board]) -> list[Question]:
    """One for each GPU and model with several engines, and for each engine and model on several GPUs.

    Of each engine or GPU it is the fastest setting that stands in the table.
    """
    found = []
    for board in boards:
        timed = [row for row in board.rows if row.system.median("reqs_per_sec")]
        for heading, asked, answer in ASKED:
            for (name, model, _), rows in _grouped(timed, attrgetter(asked)).items():
                part, told = dataclasses.replace(board, rows=tuple(rows)), attrgetter(answer)
                table = _fastest(answer, [row.system for row in rows], told)
                if len(table.rows) > 1:
                    found.append(Question(heading.format(name, model), table, charts=charts(part, told)))
    return found


def _grouped(rows: Iterable[Row], asked: Callable[[System], str]) -> dict[tuple[str, str, bool], list[Row]]:
    """Rows of one GPU (or engine) and model, random weights apart from real ones."""
    found: defaultdict[tuple[str, str, bool], list[Row]] = defaultdict(list)
    for row in rows:
        found[asked(row.system), row.system.model, row.system.newest.random_weights].append(row)
    return found


def _fastest(heading: str, systems: Iterable[System], name: Callable[[System], str]) -> Table:
    """The fastest system of each name, the fastest name first."""
    ordered = sorted(systems, key=lambda s: -(s.median("reqs_per_sec") or 0))
    first: dict[str, System] = {}
    for system in ordered:
        first.setdefault(name(system), system)
    top = ordered[0].median("reqs_per_sec") or 1
    rows = [
        [
            key,
            system.setting,
            number(rate := system.median("reqs_per_sec")),
            f"{100 * (rate or 0) / top:.0f} %",
            number(system.median("rtfx"), 1),
            number(system.wer),
        ]
        for key, system in first.items()
    ]
    return Table([heading, "settings", *HEADINGS], rows, frozenset({2, 3, 4, 5}))
