"""Progress of a sweep on stderr: a live table on a terminal, otherwise one line per change of a run."""

from __future__ import annotations

import rich.live
import rich.table
import rich.text

from whisperbench.cli import console
from whisperbench.sweep.progress import HEADINGS, NUMERIC, STATE, Progress, State
from whisperbench.text import clock, escape_control

STYLES = {"done": "green", "failed": "red", "running": "bold", "skipped": "dim", "refused": "red"}
FRAME_LINES = 6  # title, headings and borders
WIDE = 110
"""Columns of a terminal that shows all HEADINGS; on others the names of the configurations need the room."""


class LiveTable:
    """Live table of one sweep."""

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
        if progress.ended and self.live:
            self.live.stop()

    def print_changes(self, progress: Progress) -> None:
        """Print a line for each run whose state has changed."""
        for place, run in enumerate(progress.runs, 1):
            if run.state != self.states.get(place, "waiting"):
                name, repeat, state, *figures = run.row
                named = (f" | {what} {text}" for what, text in zip(HEADINGS[3:], figures, strict=True) if text)
                console.say(f"[{place}/{progress.total}] {name} #{repeat} {state}{''.join(named)}")
            self.states[place] = run.state


def window(progress: Progress, height: int) -> slice:
    """The runs that fit in `height` rows; the first running one is two thirds down if possible."""
    height = max(1, height)
    now = next((i for i, run in enumerate(progress.runs) if run.state == "running"), len(progress.runs) - 1)
    start = min(max(0, now + 1 - (2 * height + 2) // 3), max(0, len(progress.runs) - height))
    return slice(start, start + height)


def table(progress: Progress) -> rich.table.Table:
    """A table with a row for each run that fits on the terminal."""
    remaining = progress.remaining_seconds
    left = f"{'unknown time' if remaining is None else clock(remaining)} left"
    found = rich.table.Table(title=f"{progress.sentence}; {left}", title_style="bold")
    hidden = () if console.stderr.width >= WIDE else ("repeat", "elapsed", "run")
    shown = [index for index, heading in enumerate(HEADINGS) if heading not in hidden]
    for heading in (HEADINGS[index] for index in shown):
        numeric = heading in NUMERIC
        found.add_column(heading, justify="right" if numeric else "left", no_wrap=heading != "state", overflow="fold")
    for run in progress.runs[window(progress, console.stderr.height - FRAME_LINES - progress.count("running"))]:
        cells = [rich.text.Text(escape_control(cell)) for cell in run.row]
        if run.state == "running":  # its log line is cut to one line, so that the height of the row is constant
            two_lines = map(escape_control, run.row[STATE].split(": ", 1))
            cells[STATE] = rich.text.Text("\n".join(two_lines), no_wrap=True, overflow="ellipsis")
        found.add_row(*(cells[index] for index in shown), style=STYLES.get(run.state, ""))
    return found
