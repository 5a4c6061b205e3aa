"""Parent run of a sweep: it measures the child runs, shows and logs the progress, and ranks the results."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, TypeVar

from whisperbench.compare.document import Part
from whisperbench.comparison import files_of, leaderboard, origin_of, write_files
from whisperbench.config.compare import CompareConfig
from whisperbench.config.sweep import SweepConfig
from whisperbench.engines.start import hardware_of
from whisperbench.errors import ComparisonError, TrackingError
from whisperbench.files import require_writable, tail
from whisperbench.measure.load import SWEEP
from whisperbench.processes.group import CommandResult
from whisperbench.processes.watch import RUN_ID
from whisperbench.progress import Listener
from whisperbench.results.links import run_path
from whisperbench.results.names import BEST, error_metric
from whisperbench.results.record import RunRecord
from whisperbench.results.run_name import run_name
from whisperbench.sweep.parallel import DeviceSlot
from whisperbench.sweep.progress import ENDED, PlannedRun, Progress
from whisperbench.text import markdown
from whisperbench.tracking import read
from whisperbench.tracking.runs import NOTE_TAG, close_run, log_files, log_now
from whisperbench.tracking.sweep_runs import add_warning, close_failed, open_child_run
from whisperbench.tracking.tracked_run import TrackedRun

T = TypeVar("T")

TAIL_BYTES = 4_096
OUTAGE_SECONDS, RETRY_SECONDS = 600.0, 10.0


class ParentRun:
    """Measures runs with `command`, to which the options of a configuration are appended."""

    def __init__(
        self, run: TrackedRun, options: SweepConfig, progress: Progress, command: Sequence[str], listener: Listener
    ) -> None:
        self.client, self.run_id = run.client, run.run_id
        self.options, self.progress, self.command, self.listener = options, progress, command, listener
        self.directory = Path(options.shared.results_dir) / f"sweep-{run.run_id[:8]}"
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
        """Show and log the progress; a server that is not reachable for a moment does not end the sweep."""
        self.show()
        with self._lock, contextlib.suppress(TrackingError):
            progress = self.progress
            table = progress.markdown(lambda run_id: run_path(self._experiment, run_id))
            note = "\n\n".join([table, *map(markdown, progress.causes)])
            counts: dict[str, float] = {state: progress.count(state) for state in ENDED}
            counts["total"] = progress.total
            log_now(self.client, self.run_id, metrics=counts, tags={NOTE_TAG: note}, step=progress.count(*ENDED))

    def measure(self, run: PlannedRun, slot: DeviceSlot, stop: threading.Event) -> None:
        """Measure a run on `slot`, in a process that closes the child run as FINISHED.

        If the process fails, the child run is closed here with the cause and the log.  When `stop` is set, the process
        is ended.
        """
        client, config = self.client, run.config
        name = run_name(config, slot.hardware or hardware_of(config), run.name)
        of_run = {"name": name, "config_digest": config.digest, "repeat": run.repeat}
        run.run_id = run_id = self._with_retries(open_child_run, client, self.run_id, **of_run)
        try:
            run.state, run.device = "running", slot.name
            self.changed()
            ended = self._run_process(run, slot, stop)
            found = self._with_retries(client.get_run, run_id)
            run.seconds = ended.seconds
            if found.info.status != "FINISHED":
                run.failure = self._with_retries(close_failed, client, run_id, ended)
                run.state = "failed"
            else:
                run.state, run.metrics = "done", found.data.metrics
                if slot.neighbours:
                    warning = f"{slot.neighbours} other configuration(s) were measured on this host"
                    self._with_retries(add_warning, client, run_id, warning)
        except BaseException:
            run.state, run.failure = "failed", "its sweep was stopped"
            with contextlib.suppress(TrackingError):
                if client.get_run(run_id).info.status == "RUNNING":
                    close_run(client, run_id, "KILLED", run.failure)
            raise
        self.changed()

    def _run_process(self, run: PlannedRun, slot: DeviceSlot, stop: threading.Event) -> CommandResult:
        """Run the command for one configuration until all processes of its group have ended."""
        log = self.directory / str(run.run_id) / "benchmark.log"
        require_writable(log.parent, "results_dir")

        def tick(seconds: float) -> None:
            if stop.is_set():
                raise CancelledError
            run.seconds = seconds
            run.log_line = next((line for line in reversed(tail(log, TAIL_BYTES).splitlines()) if line.strip()), "")
            self.show()

        inherited = {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_NAME"}
        devices = slot.hardware.environment if slot.hardware else {}
        own = {"MLFLOW_TRACKING_URI": str(self.client.tracking_uri), RUN_ID: str(run.run_id), SWEEP: self.run_id}
        return slot.run(
            [*self.command, *(f"--{name}={value}" for name, value in run.config.as_params().items())],
            env={**inherited, **devices, **own},
            log=log,
            time_limit_seconds=60 * (self.options.time_limit_minutes or 0),
            tick=tick,
        )

    def _with_retries(self, call: Callable[..., T], *args: Any, **keywords: Any) -> T:
        """Repeat `call` for ten minutes after a TrackingError, so that a restart of the server does not end a sweep."""
        deadline, reported = time.monotonic() + OUTAGE_SECONDS, False
        while True:
            try:
                return call(*args, **keywords)
            except TrackingError as error:
                if time.monotonic() > deadline:
                    raise
                if not reported:
                    self.listener.info(f"{error} Trying again for {OUTAGE_SECONDS / 60:.0f} minutes …")
                reported = True
                time.sleep(RETRY_SECONDS)

    def leaderboard(self, echo: Callable[[Sequence[Part]], None]) -> None:
        """Rank the measured and the skipped runs, if any, and log the files of the report."""
        ids = [each.run_id for each in self.progress.runs if each.state in ("done", "skipped") and each.run_id]
        if not ids:
            return
        records = read.get_runs(self.client, ids)
        on_gpu = any(record.params.get("gpu_count", "0") != "0" for record in records)
        options = CompareConfig(sort=self.options.objective or "wer", published="matching" if on_gpu else "none")
        try:
            origin = origin_of(self.client, "sweep", self.options)
            report = leaderboard(self.client, records, options, "this sweep", origin, self.listener)
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
