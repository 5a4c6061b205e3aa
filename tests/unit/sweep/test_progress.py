"""Progress of a sweep: estimates, causes and the table of the parent run."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.stores import run_of
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.sweep.progress import PlannedRun, Progress
from whisperbench.sweep.sweep_run import best_of


def run(name: str, state: Any = "waiting", **more: Any) -> PlannedRun:
    return PlannedRun(BenchmarkConfig(), name, state=state, **more)


@pytest.mark.parametrize(
    ("runs", "planned", "slots", "seconds"),
    [
        ([run("a", "running", seconds=100, estimate_seconds=300), run("b", estimate_seconds=100)], 0, 1, 200 + 100),
        ([run("a", "done", seconds=120), run("b", estimate_seconds=300), run("c")], 0, 1, 300 + 120),
        ([run("a", "running", seconds=130, estimate_seconds=100)], 0, 1, 0),
        ([run(name, estimate_seconds=100) for name in "abcd"], 0, 2, 200),
        ([run(name, estimate_seconds=seconds) for name, seconds in (("a", 300), ("b", 100))], 0, 2, 300),
        ([run("a", estimate_seconds=100), run("b")], 0, 1, None),
        ([run("a", "done", seconds=100), run("b", "done", seconds=140)], 4, 1, 2 * 120),
        ([run("a", estimate_seconds=100)], 4, 1, 400),
        ([run("a", "refused"), run("b", "failed")], 0, 1, 0),
    ],
)  # fmt: skip
def test_the_remaining_time(runs: list[PlannedRun], planned: int, slots: int, seconds: float | None) -> None:
    """It needs the duration of every run, in a search also of those that will be added."""
    assert Progress(runs, planned, slots).remaining_seconds == seconds


def test_a_row_has_the_device_and_the_log_line_of_a_running_run() -> None:
    """A failed one has the first line of its cause instead."""
    one = run("a", "running", log_line="transcribing 5/8", device="GPU 3")
    assert one.row[2] == "running on GPU 3: transcribing 5/8"
    one.state, one.failure = "failed", "out of memory\nTraceback"
    assert one.row[2] == "failed: out of memory"
    assert run("a", "done", metrics={"cer": 9.5}).row[3] == "9.50"


def test_a_cause_is_named_once() -> None:
    """With the runs that it concerns; the table has only their states."""
    runs = [run("a", "refused", failure="[no GPU]"), run("b", "refused", failure="[no GPU]")]
    progress = Progress([*runs, run("a", "failed", failure="[no GPU]", repeat=2), run("c", "failed", failure="killed")])
    assert progress.causes == ["a, b: [no GPU]", "c: killed"]
    assert "no GPU" not in progress.markdown()


def test_markdown_has_a_row_per_run() -> None:
    """Figures have two decimals, and a pipe in a name is escaped."""
    metrics = {"wer": 2.314, "reqs_per_sec": 41.337}
    progress = Progress([run("a", "done", seconds=120, run_id="a1" * 16, metrics=metrics), run("x|y")])
    text = progress.markdown()
    assert "1 done, 0 failed, 0 skipped (finished before), 1 to do" in text
    assert "| a | 1 | done | 2.31 | 41.34 | 2:00 | a1a1a1a1 |" in text
    assert "x\\|y" in text
    assert f"[a1a1a1a1](#/runs/{'a1' * 16}) |" in progress.markdown(lambda run_id: f"#/runs/{run_id}")


def test_a_sweep_has_the_best_of_its_runs() -> None:
    """The lowest WER and the highest rates, each by itself; what no run has measured is absent."""
    records = [run_of(wer=2.5, rate=40.0), run_of(wer=2.0, rate=30.0), run_of(wer=None, rate=None)]
    assert best_of(records) == {"best/wer": 2.0, "best/reqs_per_sec": 40.0, "best/rtfx": 296.0}
    assert best_of(records[2:]) == {}
