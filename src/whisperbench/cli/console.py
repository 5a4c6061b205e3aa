"""Progress on stderr: messages, bars and spinners."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import click
import rich.console
import rich.progress
import rich.text

from whisperbench.progress import Listener
from whisperbench.text import clock, printable

LINE_SECONDS, PHASE_SECONDS = 10.0, 0.5
"""Intervals between lines without a terminal, and between updates of a spinner."""
stderr = rich.console.Console(stderr=True, highlight=False)


def say(text: str, style: str = "") -> None:
    """Print a message on stderr; control characters of foreign text are escaped."""
    stderr.print(rich.text.Text(printable(text), style=style), soft_wrap=True)


def echo(text: str) -> None:
    """Print a result on stdout; control characters of foreign text are escaped."""
    click.echo(printable(text))


class TerminalListener(Listener):
    """Shows bars and spinners on stderr, or a line every 10 s without a terminal; warnings are yellow.

    `draw` prints the records that a command shows; without it they are not printed.
    """

    def __init__(self, draw: Callable[[Any], None] | None = None) -> None:
        self._draw = draw

    def info(self, sentence: str) -> None:
        say(sentence)

    def warning(self, sentence: str) -> None:
        say(sentence, style="yellow")

    @contextlib.contextmanager
    def counting(self, what: str, total: int, unit: str) -> Iterator[Callable[[], None]]:
        """Show a bar with the count, the rate and the remaining time."""
        columns = (
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            Rate(unit),
            rich.progress.TimeRemainingColumn(),
        )
        bar = rich.progress.Progress(*columns, console=stderr)
        bar.add_task(what, total=total)
        (task,) = bar.tasks
        with contextlib.ExitStack() as shown:
            if stderr.is_terminal:
                shown.enter_context(bar)
            else:
                shown.callback(lambda: say(count_line(task, unit)))
                shown.enter_context(repeatedly(LINE_SECONDS, lambda: say(count_line(task, unit))))
            yield lambda: bar.advance(task.id)

    @contextlib.contextmanager
    def waiting(self, what: str, phase: Callable[[], str]) -> Iterator[None]:
        """Show a spinner with the phase and the elapsed time."""

        def update() -> None:
            described = printable(f"{what}: {now}" if (now := phase()) else what)
            if console.is_terminal:
                spinner.update(task.id, description=described)
            else:
                console.print(rich.text.Text(f"{described}, {task.elapsed or 0:.0f} s"), soft_wrap=True)

        columns = (
            rich.progress.SpinnerColumn(),
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.TimeElapsedColumn(),
        )
        with duplicated_stderr() as console, contextlib.ExitStack() as shown:
            # The output of vLLM goes to its log, so rich must not redirect it.
            spinner = rich.progress.Progress(
                *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            spinner.add_task(what)
            (task,) = spinner.tasks
            if console.is_terminal:
                shown.enter_context(spinner)
            shown.enter_context(repeatedly(PHASE_SECONDS if console.is_terminal else LINE_SECONDS, update))
            yield

    def show(self, record: object) -> None:
        if self._draw:
            self._draw(record)


class Rate(rich.progress.ProgressColumn):
    """Items per second since the bar was shown, which is the beginning of the timed region."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        rate = rate_of(task)
        return rich.text.Text(f"{rate:.1f} {self._unit}" if rate else "")


def rate_of(task: rich.progress.Task) -> float:
    """Items per second since the task began; 0 before the first item."""
    seconds = task.finished_time or task.elapsed
    return task.completed / seconds if seconds else 0.0


def count_line(task: rich.progress.Task, unit: str) -> str:
    """`transcribing 120/2620, 41.2 reqs/sec, 1:01 left`."""
    line, rate, left = f"{task.description} {task.completed:.0f}/{task.total:.0f}", rate_of(task), task.remaining
    line += f", {rate:.1f} {unit}" if rate else ""
    return line + (f", {clock(left / rate)} left" if rate and left else "")


@contextlib.contextmanager
def repeatedly(seconds: float, do: Callable[[], None]) -> Iterator[None]:
    """Call `do` every `seconds` in a thread while the block runs."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            do()

    thread = threading.Thread(target=run, name="terminal", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def duplicated_stderr() -> Iterator[rich.console.Console]:
    """A console on a duplicate of stderr, which keeps working while the start of an engine redirects stderr."""
    try:
        descriptor = os.dup(sys.stderr.fileno())
    except (OSError, ValueError):  # stderr is not a file, as in tests
        yield stderr
        return
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
        yield rich.console.Console(file=file, highlight=False)
