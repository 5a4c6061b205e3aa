"""The run that a sweep's child runs belong to: how far the sweep is, and its leaderboard at the end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from whisperbench.compare.document import Part
from whisperbench.comparison import files_of, leaderboard
from whisperbench.config.compare import CompareConfig
from whisperbench.config.sweep import SweepConfig
from whisperbench.errors import ComparisonError, TrackingError
from whisperbench.progress import Listener
from whisperbench.results.links import Links, run_path
from whisperbench.results.names import BEST
from whisperbench.results.record import RunRecord
from whisperbench.sweep.progress import Progress
from whisperbench.tracking import read, runs, sweep_runs
from whisperbench.tracking.client import ui_address
from whisperbench.tracking.tracked_run import TrackedRun


class ParentRun:
    """Shows and logs `progress` while the child runs are measured, then ranks what was measured or found finished."""

    def __init__(self, run: TrackedRun, options: SweepConfig, listener: Listener) -> None:
        self.client, self.run_id, self.progress = run.client, run.run_id, Progress([])
        self.directory = Path(options.shared.results_dir) / f"sweep-{run.run_id[:8]}"
        self.options, self.listener = options, listener
        self._one_at_a_time = threading.RLock()  # configurations may be measured side by side
        self._experiment = sweep_runs.experiment_of(run.client, run.run_id)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Inside the block the progress is shown, at its end for the last time, and logged."""
        self.show()
        try:
            yield
        finally:
            self.progress.ended = True
            self.show()
        self.log()

    def show(self) -> None:
        """To the listener alone."""
        with self._one_at_a_time:
            self.listener.show(self.progress)

    def changed(self) -> None:
        """To the listener, and in the run."""
        self.show()
        self.log()

    def log(self) -> None:
        """In the run alone; a server that is away for a moment does not end the sweep."""
        step = self.progress.count("done", "failed", "skipped")
        with self._one_at_a_time, contextlib.suppress(TrackingError):
            note = self.progress.markdown(lambda run_id: run_path(self._experiment, run_id))
            sweep_runs.log_progress(self.client, self.run_id, self.progress.metrics, note, step)

    def leaderboard(self, echo: Callable[[Sequence[Part]], None]) -> None:
        """What this sweep has measured or found finished, ranked, its files logged; nothing where there is nothing."""
        ids = [each.run_id for each in self.progress.runs if each.state in ("done", "skipped") and each.run_id]
        if not ids:
            return
        records = read.get_runs(self.client, ids)
        options = CompareConfig(
            sort=self.options.objective or "wer",
            published="matching" if any(e.params.get("gpu_count", "0") != "0" for e in records) else "none",
            seed=self.options.shared.seed,
        )
        links = Links(ui_address(self.client))
        try:
            report = leaderboard(self.client, records, options, links, "this sweep", self.listener)
        except ComparisonError as error:
            self.listener.said(f"no leaderboard: {error}")
            return
        echo(report.answer)
        files = files_of(report)
        self.directory.mkdir(parents=True, exist_ok=True)
        paths = [self.directory / name for name in files]
        for path, text in zip(paths, files.values(), strict=True):
            path.write_text(text, encoding="utf-8")
        runs.log_files(self.client, self.run_id, paths)
        sweep_runs.log_best(self.client, self.run_id, best_of(records))
        self.listener.said(f"report: {self.directory / 'leaderboard.html'}")


def best_of(records: Sequence[RunRecord]) -> dict[str, float]:
    """The lowest WER and the highest rate of these runs, as metrics of their sweep."""
    found = {}
    for name, best in (("wer", min), ("reqs_per_sec", max), ("rtfx", max)):
        values = [value for each in records if (value := each.metric(name)) is not None]
        if values:
            found[f"{BEST}{name}"] = best(values)
    return found
