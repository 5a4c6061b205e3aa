"""Progress on stderr: sentences, bars, spinners and the records that the commands draw."""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich.console
import rich.progress
import rich.text

from whisperbench.progress import Listener
from whisperbench.text import clock

LINE_SECONDS, PHASE_SECONDS = 10.0, 0.5
stderr = rich.console.Console(stderr=True, highlight=False)


def say(text: str, style: str = "") -> None:
    stderr.print(rich.text.Text(text, style=style), soft_wrap=True)


@functools.singledispatch
def draw(record: object) -> None:
    """Draw a record on stderr; a command imports the modules that register what it draws."""
    raise TypeError(f"no function is registered that draws a {type(record).__name__}")


class TerminalListener(Listener):
    """Shows the progress of the library on stderr; warnings are yellow."""

    def info(self, sentence: str) -> None:
        say(sentence)

    def warning(self, sentence: str) -> None:
        say(sentence, style="yellow")

    @contextmanager
    def counting(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Show a bar with a count, a rate and the time left; without a terminal, a line every 10 s."""
        if not stderr.is_terminal:
            count = Count(what, total, unit)
            with repeatedly(LINE_SECONDS, lambda: say(str(count))):
                yield count.update
            return say(str(count))
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

    @contextmanager
    def waiting(self, what: str, phase: Callable[[], str]) -> Iterator[None]:
        """Show a spinner with the phase and the elapsed time; without a terminal, a line every 10 s."""

        def described() -> str:
            return f"{what}: {now}" if (now := phase()) else what

        with duplicated_stderr() as console:
            if not console.is_terminal:
                started = time.monotonic()
                line = rich.text.Text
                with repeatedly(
                    LINE_SECONDS,
                    lambda: console.print(line(f"{described()}, {time.monotonic() - started:.0f} s"), soft_wrap=True),
                ):
                    yield
                return
            columns = (
                rich.progress.SpinnerColumn(),
                rich.progress.TextColumn("{task.description}", markup=False),
                rich.progress.TimeElapsedColumn(),
            )
            # Output of other code is not redirected: vLLM's messages go to its log.
            shown = rich.progress.Progress(
                *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            with shown:
                task = shown.add_task(what)
                with repeatedly(PHASE_SECONDS, lambda: shown.update(task, description=described())):
                    yield

    def show(self, record: object) -> None:
        draw(record)


class Rate(rich.progress.ProgressColumn):
    """Items per second since the bar was shown; it is shown when the timed region begins."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        seconds = task.finished_time or task.elapsed
        return rich.text.Text(f"{task.completed / seconds:.1f} {self._unit}" if seconds and task.completed else "")


class Count:
    """Progress as a line of text: `transcribing 120/2620, 41.2 reqs/sec, 1:01 left`."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done, self._started, self._seconds = 0, time.perf_counter(), 0.0

    def update(self, done: int) -> None:
        self._done, self._seconds = done, time.perf_counter() - self._started

    def __str__(self) -> str:
        line = f"{self._what} {self._done}/{self._total}"
        if not self._done or not self._seconds:
            return line
        rate, left = self._done / self._seconds, self._total - self._done
        return f"{line}, {rate:.1f} {self._unit}" + (f", {clock(left / rate)} left" if left else "")


@contextmanager
def repeatedly(seconds: float, do: Callable[[], None]) -> Iterator[None]:
    """Call `do` every `seconds` from another thread while the block runs."""
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


@contextmanager
def duplicated_stderr() -> Iterator[rich.console.Console]:
    """A console on the present stderr, which stays the terminal while an engine that starts redirects stderr."""
    try:
        descriptor = os.dup(sys.stderr.fileno())
    except (OSError, ValueError):  # stderr is not a file, as in tests
        yield stderr
        return
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
        yield rich.console.Console(file=file, highlight=False)
