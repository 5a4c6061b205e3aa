"""The progress of a sweep on a terminal and in a log."""

from __future__ import annotations

import pytest
from rich.console import Console

from whisperbench.cli import console
from whisperbench.cli.console import TerminalListener
from whisperbench.cli.sweep_table import table, window
from whisperbench.sweep.progress import PlannedRun, Progress


@pytest.mark.parametrize(
    ("running", "height", "shown"),
    [(0, 30, range(20)), (0, 6, range(6)), (10, 6, range(7, 13)), (19, 6, range(14, 20)), (None, 6, range(14, 20))],
)
def test_the_running_configuration_is_visible(running: int | None, height: int, shown: range) -> None:
    """The window contains the running run if the sweep has more runs than the terminal has lines."""
    lines = [PlannedRun(str(i), 1, state="running" if i == running else "waiting") for i in range(20)]
    assert list(range(20))[window(Progress(lines), height)] == list(shown)


def test_without_a_terminal_each_change_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Unchanged states print nothing; the next sweep starts with empty states."""
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


def test_the_title_has_the_remaining_time() -> None:
    """It comes from the estimate of the run, which may be too low."""
    progress = Progress([PlannedRun("a", 1, 100.0, "running", 40.0)])
    assert str(table(progress).title).endswith("; 1:00 left")
    progress.runs[0].seconds = 130.0
    assert str(table(progress).title).endswith("; 0:00 left")


def test_the_log_line_takes_one_row() -> None:
    """A long log line is cut, so that the height of the row is constant."""
    run = PlannedRun("a", 1, state="running", log_line="transcribing " * 20, device="cores 0-1")
    console = Console(width=120, height=30)
    lines = console.render_lines(table(Progress([run])), console.options)
    told = ["".join(segment.text for segment in line) for line in lines]
    assert [line.count("transcribing") > 0 for line in told].count(True) == 1
    assert any("running on cores 0-1" in line for line in told)


@pytest.mark.parametrize("width", [80, 120])
def test_the_names_are_complete_on_every_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns without information are left out, and on a narrow terminal those that differ least."""
    monkeypatch.setattr(console, "stderr", Console(width=width, height=30))
    names = [f"large-v3-turbo-fp8-seqs{seqs}-stride16" for seqs in (128, 256, 512)]
    runs = [PlannedRun(name, 1, 600.0, run_id="a1" * 16, log_line="transcribing " * 20) for name in names]
    runs[0].state, runs[0].seconds, runs[0].metrics = "done", 610.0, {"wer": 2.31, "reqs_per_sec": 41.33}
    runs[1].state, runs[1].seconds = "running", 20.0
    lines = console.stderr.render_lines(table(Progress(runs)), console.stderr.options)
    drawn = ["".join(segment.text for segment in line).rstrip() for line in lines]
    assert all(any(name in line for line in drawn) for name in names)
    assert max(map(len, drawn)) <= width
    assert "repeat" not in drawn[2]
    assert all(heading in drawn[2] for heading in ("configuration", "state", "WER", "reqs/sec"))
    assert ("run" in drawn[2].split()) is (width == 120)
