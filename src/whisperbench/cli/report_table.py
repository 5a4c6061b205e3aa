"""A comparison on stdout: tables of the terminal's width with links to click, or markdown."""

from __future__ import annotations

import functools
import itertools
import textwrap
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
LONGEST_WORD = 24  # a longer one is broken
MOST_LINES = 3  # of a cell, unless that takes more than 24 characters


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
    # One of the spaces between two columns is the box's.
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, BETWEEN - 1, 0, 0), pad_edge=False, show_edge=False)
    for place, width in enumerate(widths):
        heading = Text("\n".join(_lines(visible(table.headings[place]), width)))
        drawn.add_column(heading, width=width, justify="right" if place in table.numeric else "left")
    for row in table.rows[:MOST_ROWS]:
        cells = enumerate(zip(row, widths, strict=False))
        drawn.add_row(*(_text(cell, width, figure=place in table.numeric) for place, (cell, width) in cells))
    console.print(drawn)
    if len(table.rows) > MOST_ROWS:
        console.print(f"{len(table.rows) - MOST_ROWS} more rows are in the files.", style="dim")
    if hidden := table.headings[len(widths) :]:
        console.print(Text(f"No room for: {', '.join(map(visible, hidden))}. They are in the files.", style="dim"))


def column_widths(table: Table, room: int) -> list[int]:
    """The widths of the columns that fit into `room`, from the left.

    None is narrower than its longest word, or makes a name long and thin.  What is left then goes to the column that
    needs most lines, bit by bit.
    """
    rows = table.rows[:MOST_ROWS]

    def lines(place: int, width: int) -> list[list[str]]:
        cells = [_lines(_plain(row[place]), width, figure=place in table.numeric) for row in rows]
        return [_lines(visible(table.headings[place]), width), *cells]

    places = range(len(table.headings))
    words = [min(LONGEST_WORD, max(len(line) for cell in lines(place, 1) for line in cell)) for place in places]
    least = list(words)
    for place in places:
        while least[place] < LONGEST_WORD and max(map(len, lines(place, least[place])[1:]), default=1) > MOST_LINES:
            least[place] += 1
    if sum(words) <= room - BETWEEN * (len(words) - 1) < sum(least):
        least = words  # rather than leave a column out
    used = list(itertools.accumulate(width + BETWEEN for width in least))
    widths = least[: max(1, sum(total - BETWEEN <= room for total in used))]
    needed = [max(map(len, lines(place, width))) for place, width in enumerate(widths)]
    for _ in range(room + BETWEEN - used[len(widths) - 1]):
        place = needed.index(max(needed))
        if needed[place] == 1:
            break
        widths[place] += 1
        needed[place] = max(map(len, lines(place, widths[place])))
    return widths


def _plain(cell: Cell) -> str:
    return visible(cell.text if isinstance(cell, Linked) else cell)


def _lines(text: str, width: int, *, figure: bool = False) -> list[str]:
    """A cell in lines; words stay whole unless they are very long, and so do a figure and the range behind it."""
    if len(text) <= width:
        return [text]
    if figure:
        return text.replace(" (", "\n(", 1).split("\n")
    return textwrap.wrap(text, width, break_long_words=width >= LONGEST_WORD)


def _text(cell: Cell, width: int | None = None, *, figure: bool = False) -> Text:
    text = _plain(cell)
    lines = [text] if width is None else _lines(text, width, figure=figure)
    return Text("\n".join(lines), style=Style(link=cell.address) if isinstance(cell, Linked) else "")
