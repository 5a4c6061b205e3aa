"""What a person sees while a command works: everything here goes to stderr."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich.console
import rich.progress
import rich.text

from whisperbench.listener import Listener

stderr = rich.console.Console(stderr=True, highlight=False)


def say(text: str, style: str = "") -> None:
    stderr.print(rich.text.Text(text, style=style), soft_wrap=True)


@functools.singledispatch
def draw(record: object) -> None:
    """Draw a record on stderr; the modules of this package register the types that they can draw."""
    raise TypeError(f"nothing here draws a {type(record).__name__}")


class TerminalListener(Listener):
    """What the library says, on stderr: sentences, warnings in yellow, bars, and records as they are drawn here."""

    def said(self, sentence: str) -> None:
        say(sentence)

    def warned(self, sentence: str) -> None:
        say(sentence, style="yellow")

    @contextmanager
    def counting(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """A bar with a count, a rate and an estimate of the time left."""
        columns = (
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            Rate(unit),
            rich.progress.TimeRemainingColumn(),
        )
        with rich.progress.Progress(*columns, console=stderr) as progress:
            task = progress.add_task(what, total=total)
            yield lambda done: progress.update(task, completed=done)

    def show(self, record: object) -> None:
        from flows.terminal import sweep_table, transcripts  # noqa: F401 - they register what they draw

        draw(record)


class Rate(rich.progress.ProgressColumn):
    """Things per second, lately."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        speed = task.finished_speed or task.speed
        return rich.text.Text(f"{speed:.1f} {self._unit}" if speed else "")
