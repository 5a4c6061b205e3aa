"""A comparison on stdout: tables of the terminal's width with links to click, or markdown."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import click
import rich.box
import rich.console
import rich.table
from rich.style import Style
from rich.text import Text

from whisperbench.compare.report_markdown import as_markdown
from whisperbench.compare.tables import Cell, Heading, Linked, Paragraph, Part, Table
from whisperbench.text import visible

MOST_ROWS = 40
BETWEEN = 2  # spaces between two columns


def printer(wanted: str, console: rich.console.Console | None = None) -> Callable[[str | Sequence[Part]], None]:
    """What prints a result: markdown, or tables; `auto` takes tables where stdout is a terminal."""
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
        case Heading(cells):
            console.print(Text.assemble("\n", *map(_text, cells), style="bold"))
        case Paragraph(cell, subject):
            console.print(Text.assemble((f"{visible(subject)}: " if subject else "", "bold"), _text(cell)))
        case Table():
            _draw_table(part, console)


def _draw_table(table: Table, console: rich.console.Console) -> None:
    """As many columns from the left as there is room for, long cells on several lines; says what is not shown."""
    widths = column_widths(table, console.width)
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, BETWEEN, 0, 0), pad_edge=False, show_edge=False)
    for place, width in enumerate(widths):
        justify = "right" if place in table.numeric else "left"
        drawn.add_column(Text(visible(table.headings[place])), width=width, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in table.rows[:MOST_ROWS]:
        drawn.add_row(*map(_text, row[: len(widths)]))
    console.print(drawn)
    if len(table.rows) > MOST_ROWS:
        console.print(f"{len(table.rows) - MOST_ROWS} more rows are in the files.", style="dim")
    if hidden := table.headings[len(widths) :]:
        console.print(Text(f"No room for: {', '.join(map(visible, hidden))}. They are in the files.", style="dim"))


def column_widths(table: Table, room: int) -> list[int]:
    """The widths of the columns that fit into `room`: none narrower than its longest word, then widened in order."""
    columns = [[heading, *map(_plain, cells)] for heading, *cells in zip(table.headings, *table.rows, strict=True)]
    least = [max(len(word) for cell in cells for word in [*cell.split(), ""]) for cells in columns]
    used = list(itertools.accumulate(width + BETWEEN for width in least))
    shown = max(1, sum(total - BETWEEN <= room for total in used))
    left, widths = room - (used[shown - 1] - BETWEEN), least[:shown]
    for place, cells in enumerate(columns[:shown]):
        more = min(left, max(map(len, cells)) - widths[place])
        widths[place], left = widths[place] + max(0, more), left - max(0, more)
    return widths


def _plain(cell: Cell) -> str:
    return visible(cell.text if isinstance(cell, Linked) else cell)


def _text(cell: Cell) -> Text:
    return Text(_plain(cell), style=Style(link=cell.address) if isinstance(cell, Linked) else "")
