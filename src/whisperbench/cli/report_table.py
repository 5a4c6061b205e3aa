"""A comparison on stdout: tables that fit the terminal, or markdown."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence

import click
import rich.box
import rich.console
import rich.table
from rich.style import Style
from rich.text import Text

from whisperbench.compare.document import Cell, Heading, Linked, Paragraph, Part, Table
from whisperbench.compare.render import as_markdown
from whisperbench.text import escape_control

MAX_ROWS = 40
WRAPPED = 24  # a column is never narrower than its longest cell or this number of characters
INTERVAL = re.compile(r" \(.*\)$")


def printer(wanted: str, console: rich.console.Console | None = None) -> Callable[[str | Sequence[Part]], None]:
    """A function that prints a result as markdown or as tables; `auto` prints tables on a terminal."""
    console = console or rich.console.Console(highlight=False)
    tables = wanted == "table" or (wanted == "auto" and console.is_terminal)
    return functools.partial(_print, console=console if tables else None)


def _print(found: str | Sequence[Part], console: rich.console.Console | None) -> None:
    if isinstance(found, str):
        click.echo(found)
    elif console is None:
        click.echo(as_markdown(found))
    else:
        for part in found:
            _draw(part, console)


def _draw(part: Part, console: rich.console.Console) -> None:
    match part:
        case Heading(cells, level):
            console.print(Text.assemble("\n" if level > 1 else "", *map(_text, cells), style="bold"))
        case Paragraph(cell, subject):
            console.print(Text.assemble((f"{escape_control(subject)}: " if subject else "", "bold"), _text(cell)))
        case Table():
            _draw_table(part, console)


def _draw_table(table: Table, console: rich.console.Console) -> None:
    """Without room first the intervals, then the run ids and then the columns on the right are left out."""
    every, unlimited = range(len(table.headings)), console.options.update(width=10_000)
    without_ids = [place for place in every if table.headings[place] != "run"]
    drawn, hidden = _columns(table, every), set[int]()
    for count in range(len(every), -1, -1):
        if console.measure(drawn, options=unlimited).minimum <= console.width:
            break
        kept = list(every) if count == len(every) else without_ids[: count + 1]
        drawn, hidden = _columns(table, kept, intervals=False), {*every} - {*kept}
    console.print(drawn)
    notes = [f"{len(table.rows) - MAX_ROWS} more rows"] if len(table.rows) > MAX_ROWS else []
    notes += [escape_control(table.headings[place]) for place in sorted(hidden)]
    if notes:
        console.print(Text(f"Not shown: {', '.join(notes)}.", style="dim"))


def _columns(table: Table, places: Iterable[int], *, intervals: bool = True) -> rich.table.Table:
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    columns = []
    for place in places:
        numeric = place in table.numeric
        cells = [_text(row[place]) for row in table.rows[:MAX_ROWS]]
        columns.append([Text(INTERVAL.sub("", cell.plain)) for cell in cells] if numeric and not intervals else cells)
        heading = Text(escape_control(table.headings[place]))
        narrowest = min(WRAPPED, max(map(len, [heading, *columns[-1]])))
        drawn.add_column(heading, justify="right" if numeric else "left", min_width=narrowest, overflow="fold")
    for line in zip(*columns, strict=True):
        drawn.add_row(*line)
    return drawn


def _text(cell: Cell) -> Text:
    if isinstance(cell, Linked):
        return Text(escape_control(cell.text), style=Style(link=cell.address))
    return Text(escape_control(cell))
