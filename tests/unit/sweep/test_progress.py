"""Progress of a sweep: estimates and the table of the parent run."""

from __future__ import annotations

from collections.abc import Mapping

from whisperbench.sweep.progress import PlannedRun, Progress


class TestProgress:
    METRICS: Mapping[str, float] = {"wer": 2.314, "reqs_per_sec": 41.337}

    def progress(self) -> Progress:
        return Progress(
            [
                PlannedRun("a", 1, 100.0, "done", 120.0, "a1" * 16, metrics=self.METRICS),
                PlannedRun("b", 1, 300.0, "running", 100.0, "b1" * 16),
                PlannedRun("a", 2, 100.0),
                PlannedRun("b", 2, 300.0),
            ]
        )

    def test_the_remaining_time_prefers_what_this_sweep_has_measured(self) -> None:
        """a took 120 s instead of the estimated 100 s; b has 200 s left, then a and b follow."""
        progress = self.progress()
        assert progress.remaining_seconds == 200 + 120 + 300

    def test_the_log_line_follows_the_state(self) -> None:
        """The log line is shown only while the run is running."""
        run = self.progress().runs[1]
        run.log_line = "transcribing 5/8"
        assert [row[2] for row in Progress([run]).rows()] == ["running: transcribing 5/8"]
        run.state = "done"
        assert [row[2] for row in Progress([run]).rows()] == ["done"]

    def test_one_unknown_time_makes_the_sum_unknown(self) -> None:
        """The sum would otherwise be too small."""
        progress = Progress([PlannedRun("a", 1, 100.0), PlannedRun("b", 1)])
        assert progress.remaining_seconds is None

    def test_the_cer_is_shown_without_a_wer(self) -> None:
        """In languages whose unit is the character."""
        run = PlannedRun("a", 1, 100.0, "done", 120.0, metrics={"cer": 9.5, "reqs_per_sec": 41.0})
        assert [row[3] for row in Progress([run]).rows()] == ["9.50"]

    def test_markdown_has_a_row_per_run(self) -> None:
        """Figures have two decimals, and a pipe in a name is escaped."""
        progress = self.progress()
        progress.runs[1].name = "x|y"
        text = progress.markdown()
        assert "1 done, 0 failed, 0 skipped (finished before), 3 to do" in text
        assert "| a | 1 | done | 2.31 | 41.34 | 2:00 | a1a1a1a1 |" in text
        assert "x\\|y" in text
        assert f"[a1a1a1a1](#/runs/{'a1' * 16}) |" in progress.markdown(lambda run_id: f"#/runs/{run_id}")
