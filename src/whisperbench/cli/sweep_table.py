"""A sweep as people watch it on stderr: a live table on a terminal, a line per change anywhere else."""

from __future__ import annotations

import rich.live
import rich.table
import rich.text

from whisperbench.cli import console
from whisperbench.sweep.progress import HEADINGS, Progress, State, plain
from whisperbench.text import clock, escape_control

STYLES = {"done": "green", "failed": "red", "running": "bold", "skipped": "dim"}
FRAME_LINES = 6  # title, headings and borders
STATE = HEADINGS.index("state")
NUMERIC = ("repeat", "WER", "reqs/sec", "elapsed", "ETA")


class Shown:
    """What stderr shows of the sweep that runs: there is one at a time."""

    def __init__(self) -> None:
        self.live: rich.live.Live | None = None
        self.states: dict[int, State] = {}

    def draw(self, progress: Progress) -> None:
        """Redraw the table, or say what has changed since the last time."""
        if console.stderr.is_terminal:
            if self.live is None:
                self.live = rich.live.Live(console=console.stderr, auto_refresh=False)
                self.live.start()
            self.live.update(table(progress), refresh=True)
        else:
            self.say_changes(progress)
        if progress.ended:
            if self.live:
                self.live.stop()
            self.live, self.states = None, {}

    def say_changes(self, progress: Progress) -> None:
        """A line for each run that is in another state than it was, and not only waits."""
        for place, (run, row) in enumerate(zip(progress.runs, progress.rows(), strict=True), 1):
            if self.states.get(place, "waiting") != run.state:
                if run.state != "waiting":
                    console.say(escape_control(f"[{place}/{progress.total}] {plain(row)}"))
                self.states[place] = run.state


shown = Shown()
console.draw.register(Progress, shown.draw)


def window(progress: Progress, height: int) -> slice:
    """The runs that a terminal has room for, with what runs now in the last third."""
    height = max(1, height)
    now = next((i for i, run in enumerate(progress.runs) if run.state == "running"), len(progress.runs) - 1)
    start = min(max(0, now + 1 - (2 * height + 2) // 3), max(0, len(progress.runs) - height))
    return slice(start, start + height)


def table(progress: Progress) -> rich.table.Table:
    """The sentence, and a row for each run that there is room for."""
    remaining = progress.remaining_seconds
    late = next((late for run in progress.runs if (late := progress.overdue(run))), "")
    known = f"{'unknown time' if remaining is None else clock(remaining)} left"
    left = known if remaining or not late else late  # an overdue run is not about to end
    found = rich.table.Table(title=f"{progress.sentence}; {left}", title_style="bold")
    for heading in HEADINGS:
        found.add_column(heading, justify="right" if heading in NUMERIC else "left")
    rows = list(zip(progress.runs, progress.rows(), strict=True))
    for run, row in rows[window(progress, console.stderr.height - FRAME_LINES - progress.count("running"))]:
        cells = [rich.text.Text(escape_control(cell)) for cell in row]
        if run.state == "running":  # what goes on inside has one line, so that rows do not grow and shrink
            state, _, doing = row[STATE].partition(": ")
            two_lines = "\n".join(escape_control(part) for part in (state, doing) if part)
            cells[STATE] = rich.text.Text(two_lines, no_wrap=True, overflow="ellipsis")
        found.add_row(*cells, style=STYLES.get(run.state, ""))
    return found
