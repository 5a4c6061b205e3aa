"""Progress of a sweep on stderr: a live table on a terminal, otherwise one line per change of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import rich.live
import rich.table
import rich.text

from whisperbench.cli import console
from whisperbench.sweep.progress import HEADINGS, NUMERIC, Progress, State, plain
from whisperbench.text import clock, escape_control

STYLES = {"done": "green", "failed": "red", "running": "bold", "skipped": "dim", "refused": "red"}
FRAME_LINES = 6  # title, headings and borders
STATE = HEADINGS.index("state")
STATE_WIDTH = 16
"""Characters of the state that are always shown; its detail is cut or wrapped."""
OMITTED_FIRST = ("run", "elapsed", "repeat")


class LiveTable:
    """Live table of the sweep of this process."""

    def __init__(self) -> None:
        self.live: rich.live.Live | None = None
        self.states: dict[int, State] = {}

    def draw(self, progress: Progress) -> None:
        """Redraw the table, or print what has changed since the last call."""
        if console.stderr.is_terminal:
            if self.live is None:
                self.live = rich.live.Live(console=console.stderr, auto_refresh=False)
                self.live.start()
            self.live.update(table(progress), refresh=True)
        else:
            self.print_changes(progress)
        if progress.ended:
            if self.live:
                self.live.stop()
            self.live, self.states = None, {}

    def print_changes(self, progress: Progress) -> None:
        """Print a line for each run whose state has changed."""
        for place, (run, row) in enumerate(zip(progress.runs, progress.rows(), strict=True), 1):
            if self.states.get(place, "waiting") != run.state:
                if run.state != "waiting":
                    console.say(f"[{place}/{progress.total}] {plain(row)}")
                self.states[place] = run.state


live_table = LiveTable()
console.draw.register(Progress, live_table.draw)


def window(progress: Progress, height: int) -> slice:
    """The runs that fit in `height` rows; the first running one is two thirds down if possible."""
    height = max(1, height)
    now = next((i for i, run in enumerate(progress.runs) if run.state == "running"), len(progress.runs) - 1)
    start = min(max(0, now + 1 - (2 * height + 2) // 3), max(0, len(progress.runs) - height))
    return slice(start, start + height)


def shown_columns(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Indices of HEADINGS without columns that are empty or, for the repeat, equal in all rows.

    On a narrow terminal the columns of OMITTED_FIRST are left out until the others fit, so that the names of the
    configurations are complete.
    """
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, (heading, *cells))) + 3 for heading, cells in zip(HEADINGS, columns, strict=True)]
    widths[STATE] = min(widths[STATE], STATE_WIDTH + 3)
    shown = [i for i, cells in enumerate(columns) if any(cells) and (HEADINGS[i] != "repeat" or len(set(cells)) > 1)]
    for heading in OMITTED_FIRST:
        if sum(widths[i] for i in shown) + 1 > width:
            shown = [i for i in shown if HEADINGS[i] != heading]
    return shown


def table(progress: Progress) -> rich.table.Table:
    """A table with a row for each run that fits on the terminal."""
    remaining = progress.remaining_seconds
    left = f"{'unknown time' if remaining is None else clock(remaining)} left"
    found = rich.table.Table(title=f"{progress.sentence}; {left}", title_style="bold")
    rows = progress.rows()
    shown = shown_columns(rows, console.stderr.width) if rows else range(len(HEADINGS))
    for index in shown:
        justify: Literal["left", "right"] = "right" if HEADINGS[index] in NUMERIC else "left"
        found.add_column(HEADINGS[index], justify=justify, no_wrap=index != STATE, overflow="fold")
    pairs = list(zip(progress.runs, rows, strict=True))
    for run, row in pairs[window(progress, console.stderr.height - FRAME_LINES - progress.count("running"))]:
        cells = [rich.text.Text(escape_control(cell)) for cell in row]
        if run.state == "running":  # its log line is cut to one line, so that the height of the row is constant
            two_lines = map(escape_control, row[STATE].split(": ", 1))
            cells[STATE] = rich.text.Text("\n".join(two_lines), no_wrap=True, overflow="ellipsis")
        found.add_row(*(cells[index] for index in shown), style=STYLES.get(run.state, ""))
    return found
