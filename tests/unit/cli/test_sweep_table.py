"""The progress of a sweep on a terminal and in a log."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from whisperbench.cli import console
from whisperbench.cli.console import TerminalListener
from whisperbench.cli.sweep_table import LiveTable, table, window
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.sweep.progress import PlannedRun, Progress


def run(name: str, state: Any = "waiting", **more: Any) -> PlannedRun:
    return PlannedRun(BenchmarkConfig(), name, state=state, **more)


def drawn(progress: Progress, width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(console, "stderr", Console(width=width, height=30))
    lines = console.stderr.render_lines(table(progress), console.stderr.options)
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


@pytest.mark.parametrize(
    ("running", "height", "shown"),
    [(0, 30, range(20)), (0, 6, range(6)), (10, 6, range(7, 13)), (19, 6, range(14, 20)), (None, 6, range(14, 20))],
)
def test_the_running_configuration_is_visible(running: int | None, height: int, shown: range) -> None:
    """The window contains the running run if the sweep has more runs than the terminal has lines."""
    runs = [run(str(i), "running" if i == running else "waiting") for i in range(20)]
    assert list(range(20))[window(Progress(runs), height)] == list(shown)


def test_without_a_terminal_each_change_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Unchanged states print nothing."""
    listener = TerminalListener(LiveTable().draw)
    progress = Progress([run("a", "skipped", seconds=61), run("b")])
    listener.show(progress)
    progress.runs[1].state = "running"
    listener.show(progress)
    listener.show(progress)
    progress.runs[1].state, progress.ended = "done", True
    listener.show(progress)
    assert capsys.readouterr().err.splitlines() == [
        "[1/2] a #1 skipped | elapsed 1:01",
        "[2/2] b #1 running",
        "[2/2] b #1 done",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_every_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are complete, a log line takes one row, and columns are left out on a narrow terminal."""
    names = [f"large-v3-turbo-fp8-seqs{seqs}-stride16" for seqs in (128, 256, 512)]
    more: dict[str, Any] = {"run_id": "a1" * 16, "estimate_seconds": 600}
    runs = [
        run(names[0], "done", seconds=610, metrics={"wer": 2.31, "reqs_per_sec": 41.33}, **more),
        run(names[1], "running", seconds=20, log_line="transcribing " * 20, device="cores 0-1", **more),
        run(names[2], **more),
    ]
    lines = drawn(Progress(runs), width, monkeypatch)
    assert all(any(name in line for line in lines) for name in names)
    assert max(map(len, lines)) <= width
    assert sum("transcribing" in line for line in lines) == 1
    assert "19:40 left" in " ".join(lines)
    heading = next(line for line in lines if "configuration" in line)
    assert all(each in heading for each in ("configuration", "state", "WER", "reqs/sec"))
    assert ("elapsed" in heading) is (width == 120)
