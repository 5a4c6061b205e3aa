"""What a person sees of a sweep while it runs."""

from __future__ import annotations

import pytest
from rich.console import Console

from whisperbench.cli.console import TerminalListener
from whisperbench.cli.sweep_table import table, window
from whisperbench.sweep.progress import PlannedRun, Progress


@pytest.mark.parametrize(
    ("running", "height", "shown"),
    [(0, 30, range(20)), (0, 6, range(6)), (10, 6, range(7, 13)), (19, 6, range(14, 20)), (None, 6, range(14, 20))],
)
def test_what_runs_now_is_on_the_screen(running: int | None, height: int, shown: range) -> None:
    """A sweep may have more lines than the terminal."""
    lines = [PlannedRun(str(i), 1, state="running" if i == running else "waiting") for i in range(20)]
    assert list(range(20))[window(Progress(lines), height)] == list(shown)


def test_without_a_terminal_there_is_a_line_per_change(capsys: pytest.CaptureFixture[str]) -> None:
    """However often it is shown; the next sweep begins anew."""
    listener = TerminalListener()
    for _ in range(2):
        progress = Progress([PlannedRun("a", 1, state="skipped"), PlannedRun("b", 1)])
        listener.show(progress)
        progress.runs[1].state = "running"
        listener.show(progress)
        listener.show(progress)
        progress.runs[1].state, progress.ended = "done", True
        listener.show(progress)
        lines = capsys.readouterr().err.splitlines()
        assert [line.partition(" |")[0] for line in lines] == [
            "[1/2] a #1 skipped",
            "[2/2] b #1 running",
            "[2/2] b #1 done",
        ]


def test_an_overdue_run_is_not_about_to_end() -> None:
    """The title says how late it is, and not that no time is left."""
    progress = Progress([PlannedRun("a", 1, 100.0, "running", 40.0)])
    assert str(table(progress).title).endswith("; 1:00 left")
    progress.runs[0].seconds = 130.0
    assert str(table(progress).title).endswith("; 0:30 late")


def test_what_goes_on_inside_has_one_line() -> None:
    """However long it is: rows do not grow and shrink."""
    run = PlannedRun("a", 1, state="running", log_line="transcribing " * 20, device="cores 0-1")
    console = Console(width=120, height=30)
    lines = console.render_lines(table(Progress([run])), console.options)
    told = ["".join(segment.text for segment in line) for line in lines]
    assert [line.count("transcribing") > 0 for line in told].count(True) == 1
    assert any("running on cores 0-1" in line for line in told)
