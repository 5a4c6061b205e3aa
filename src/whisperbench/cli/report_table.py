"""The result of a comparison on stdout, as tables that fit the terminal or as markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import rich.box
import rich.console
import rich.table
from rich.style import Style
from rich.text import Text

from whisperbench.cli.console import echo
from whisperbench.compare.document import Cell, Change, Heading, Linked, Part, Table
from whisperbench.compare.render import as_markdown
from whisperbench.text import escape_control

MAX_ROWS = 40
WRAP_WIDTH = 24  # cells are wrapped only beyond this number of characters
INTERVAL = re.compile(r" \((?:[-+±\d][-+±\d.,–% to]*|at most [^)]*)\)$")
"""An interval, noise or limit after a figure or a verdict, in parentheses."""


def printer(wanted: str, console: rich.console.Console | None = None) -> Callable[[str | Sequence[Part]], None]:
    """Returns a function that prints a result as markdown or as tables; `auto` prints tables on a terminal."""
    console = console or rich.console.Console(highlight=False)
    tables = wanted == "table" or (wanted == "auto" and console.is_terminal)

    def show(result: str | Sequence[Part]) -> None:
        if isinstance(result, str):
            echo(result)
        elif tables:
            for part in result:
                _print(part, console)
        else:
            echo(as_markdown(result))

    return show


def _print(part: Part, console: rich.console.Console) -> None:
    match part:
        case Heading(cells, level):
            console.print(Text.assemble("\n" if level > 1 else "", *map(_text, cells), style="bold"))
        case Table():
            _print_table(part, console)
        case _:
            console.print(_text(part))


def _print_table(table: Table, console: rich.console.Console) -> None:
    """Print a table; if it is too wide, leave out the intervals from left to right, then the run ids, then columns.

    Columns are left out from the right, and those that the table requires are kept.
    """
    unlimited = console.options.update(width=10_000)
    for shown, intervals in _layouts(table):
        drawn = _columns(table, shown, intervals)
        if console.measure(drawn, options=unlimited).minimum <= console.width:
            break
    console.print(drawn)
    notes = [f"{len(table.rows) - MAX_ROWS} more rows"] if len(table.rows) > MAX_ROWS else []
    notes += [escape_control(heading) for index, heading in enumerate(table.headings) if index not in shown]
    if notes:
        console.print(Text(f"Not shown: {', '.join(notes)}.", style="dim"))


def _layouts(table: Table) -> Iterator[tuple[list[int], list[int]]]:
    """Indices of the columns and of those with intervals, the most complete layout first."""
    every = list(range(len(table.headings)))
    yield from ((every, every[start:]) for start in range(len(every) + 1))
    shown = [index for index in every if table.headings[index] != "run"]
    yield shown, []
    for index in reversed(shown):
        if index not in table.required and len(shown) > 1:
            shown = [each for each in shown if each != index]
            yield shown, []


def _columns(table: Table, shown: list[int], intervals: list[int]) -> rich.table.Table:
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    columns = []
    for index in shown:
        heading = Text(escape_control(table.headings[index]))
        cells = [_text(row[index]) for row in table.rows[:MAX_ROWS]]
        if index not in intervals:
            cells = [Text(INTERVAL.sub("", cell.plain), cell.style) for cell in cells]
        widest = max(map(len, [heading, *cells]))
        drawn.add_column(
            heading,
            justify="right" if index in table.numeric else "left",
            min_width=widest if table.required else min(WRAP_WIDTH, widest),
            overflow="fold",
        )
        columns.append(cells)
    for line in zip(*columns, strict=True):
        drawn.add_row(*line)
    return drawn


def _text(cell: Cell) -> Text:
    if isinstance(cell, Linked):
        return Text(escape_control(cell.text), style=Style(link=cell.address))
    if isinstance(cell, Change):
        return Text(cell.text, style={"better": "green", "worse": "red", "": ""}[cell.verdict])
    return Text(escape_control(cell))
