"""What a person sees while a command works: everything here goes to stderr."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import rich.console
import rich.progress
import rich.text

from whisperbench.measure.alignment import align, to_terminal

if TYPE_CHECKING:
    from whisperbench.measure.clock import Transcript
    from whisperbench.measure.score import Score

SHOWN_TRANSCRIPTS = 12
"""A corpus of at most this many utterances has each transcript shown at the end."""

stderr = rich.console.Console(stderr=True, highlight=False)


def say(text: str) -> None:
    stderr.print(rich.text.Text(text), soft_wrap=True)


class Rate(rich.progress.ProgressColumn):
    """Things per second, lately."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        speed = task.finished_speed or task.speed
        return rich.text.Text(f"{speed:.1f} {self._unit}" if speed else "")


class Bar:
    def __init__(self, progress: rich.progress.Progress, task: rich.progress.TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, count: int = 1) -> None:
        self._progress.advance(self._task, count)

    def reached(self, count: int) -> None:
        self._progress.update(self._task, completed=count)


@contextmanager
def bar(what: str, total: int, unit: str = "reqs/sec") -> Iterator[Bar]:
    """A progress bar with a count, a rate and an estimate of the time left."""
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        Rate(unit),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=stderr) as progress:
        yield Bar(progress, progress.add_task(what, total=total))


def show_transcripts(transcripts: Sequence[Transcript], score: Score | None) -> None:
    """Each transcript of a small corpus, its differences from the reference in colour."""
    if len(transcripts) > SHOWN_TRANSCRIPTS:
        return
    scored = {each.utt_id: each for each in score.utterances} if score else {}
    for transcript in transcripts:
        found = scored.get(transcript.utt_id)
        errors = f"{found.counts.errors} of {found.counts.words} words wrong" if found else "no reference"
        stderr.print(rich.text.Text(f"\n{transcript.utt_id}  {transcript.seconds:.1f} s  {errors}", style="bold"))
        if found:
            words = found.reference_normalized.split(), found.hypothesis_normalized.split()
            stderr.print(to_terminal(align(*words)))
        else:
            stderr.print(rich.text.Text(transcript.hypothesis))
