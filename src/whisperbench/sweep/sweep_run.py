"""Parent run of a sweep: progress while the child runs are measured, and the leaderboard at the end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from whisperbench.compare.document import Part
from whisperbench.comparison import files_of, leaderboard, origin_of, write_files
from whisperbench.config.compare import CompareConfig
from whisperbench.config.sweep import SweepConfig
from whisperbench.errors import ComparisonError, TrackingError
from whisperbench.progress import Listener
from whisperbench.results.links import Links, run_path
from whisperbench.results.names import BEST, error_metric
from whisperbench.results.record import RunRecord
from whisperbench.sweep.progress import ENDED, Progress
from whisperbench.tracking import read
from whisperbench.tracking.client import ui_address
from whisperbench.tracking.runs import NOTE_TAG, log_files, log_now
from whisperbench.tracking.tracked_run import TrackedRun


class ParentRun:
    """Shows and logs `progress` while the child runs are measured, then ranks the measured and the skipped runs."""

    def __init__(self, run: TrackedRun, options: SweepConfig, listener: Listener) -> None:
        self.client, self.run_id, self.progress = run.client, run.run_id, Progress([])
        self.directory = Path(options.shared.results_dir) / f"sweep-{run.run_id[:8]}"
        self.options, self.listener = options, listener
        self._lock = threading.RLock()  # configurations may be measured in parallel
        self._experiment = run.experiment_id

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Show the progress during the block, and log it at the end."""
        self.show()
        try:
            yield
        finally:
            self.progress.ended = True
            self.changed()

    def show(self) -> None:
        """Pass the progress to the listener."""
        with self._lock:
            self.listener.show(self.progress)

    def changed(self) -> None:
        """Show and log the progress."""
        self.show()
        self.log()

    def log(self) -> None:
        """Log the progress; a server that is not reachable for a moment does not end the sweep."""
        with self._lock, contextlib.suppress(TrackingError):
            note = self.progress.markdown(lambda run_id: run_path(self._experiment, run_id))
            step = self.progress.count(*ENDED)
            log_now(self.client, self.run_id, metrics=self.progress.metrics, tags={NOTE_TAG: note}, step=step)

    def leaderboard(self, echo: Callable[[Sequence[Part]], None]) -> None:
        """Rank the measured and the skipped runs, if any, and log the files of the report."""
        ids = [each.run_id for each in self.progress.runs if each.state in ("done", "skipped") and each.run_id]
        if not ids:
            return
        records = read.get_runs(self.client, ids)
        on_gpu = any(record.params.get("gpu_count", "0") != "0" for record in records)
        options = CompareConfig(
            sort=self.options.objective or "wer",
            published="matching" if on_gpu else "none",
        )
        try:
            links = Links(ui_address(self.client))
            origin = origin_of(self.client, "sweep", self.options)
            report = leaderboard(self.client, records, options, links, "this sweep", origin, self.listener)
            echo(report.answer)
            log_now(self.client, self.run_id, metrics=best_of(records))
            log_files(self.client, self.run_id, write_files(self.directory, files_of(report)))
        except ComparisonError as error:
            self.listener.info(f"The leaderboard is incomplete. {error}")
            return
        self.listener.info(f"Leaderboard: {self.directory / 'leaderboard.html'}")


def best_of(records: Sequence[RunRecord]) -> dict[str, float]:
    """The lowest error rate and the highest rates of these runs, as metrics of their sweep."""
    found, error = {}, error_metric({name for each in records for name in each.metrics})
    for name, best in ((error, min), ("reqs_per_sec", max), ("rtfx", max)):
        values = [value for each in records if (value := each.metric(name)) is not None]
        if values:
            found[f"{BEST}{name}"] = best(values)
    return found
