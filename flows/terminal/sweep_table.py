"""A sweep as people watch it on stderr: a live table on a terminal, a line per change anywhere else."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import rich.live
import rich.table
import rich.text

from flows.terminal import console
from whisperbench.sweep.progress import HEADINGS, Line, Progress, clock, plain
from whisperbench.text import visible

STYLES = {"done": "green", "failed": "red", "running": "bold", "skipped": "dim", "pruned": "dim"}
FRAME_LINES = 6  # title, headings and borders
NUMERIC = ("repeat", "WER", "reqs/sec", "elapsed", "ETA")


class Watch:
    """Shows `progress` while a `with` block runs; `changed` redraws, and says what changed where nothing is redrawn."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        live = console.stderr.is_terminal
        self._live = rich.live.Live(console=console.stderr, auto_refresh=False) if live else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
            self.tick()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self.tick()
            self._live.stop()

    def tick(self) -> None:
        if self._live:
            self._live.update(table(self._progress), refresh=True)

    def changed(self, line: Line) -> None:
        if self._live:
            self.tick()
            return
        row = self._progress.rows()[self._progress.lines.index(line)]
        place = self._progress.lines.index(line) + 1
        console.say(visible(f"[{place}/{self._progress.total}] {plain(row)}"))


def window(progress: Progress, height: int) -> slice:
    """The lines that a terminal has room for, with what runs now in the last third."""
    height = max(1, height)
    now = next((i for i, line in enumerate(progress.lines) if line.state == "running"), len(progress.lines) - 1)
    start = min(max(0, now + 1 - (2 * height + 2) // 3), max(0, len(progress.lines) - height))
    return slice(start, start + height)


def table(progress: Progress) -> rich.table.Table:
    remaining = progress.remaining_seconds
    left = "unknown time" if remaining is None else clock(remaining)
    found = rich.table.Table(title=f"{progress.sentence}; {left} left", title_style="bold")
    for heading in HEADINGS:
        found.add_column(heading, justify="right" if heading in NUMERIC else "left")
    rows = list(zip(progress.lines, progress.rows(), strict=True))
    for line, row in rows[window(progress, console.stderr.height - FRAME_LINES)]:
        found.add_row(*(rich.text.Text(visible(cell)) for cell in row), style=STYLES.get(line.state, ""))
    return found
