"""Parent run of a sweep: it measures the child runs, shows and logs the progress, and ranks the results."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, TypeVar

from whisperbench.compare.document import Part
from whisperbench.comparison import Comparison, files_of, origin_of, write_files
from whisperbench.config.compare import CompareConfig
from whisperbench.config.sweep import SweepConfig
from whisperbench.engines.start import hardware_of
from whisperbench.errors import ComparisonError, ConfigError, SweepError, TrackingError
from whisperbench.files import require_writable, tail
from whisperbench.measure.load import SWEEP
from whisperbench.processes.group import CommandResult
from whisperbench.processes.watch import RUN_ID
from whisperbench.progress import Listener
from whisperbench.results.links import run_path
from whisperbench.results.names import BEST, error_metric
from whisperbench.results.record import RunRecord
from whisperbench.results.run_name import run_name
from whisperbench.results.summary import command_line
from whisperbench.sweep.parallel import DeviceSlot, run_in_parallel
from whisperbench.sweep.plan import Planner
from whisperbench.sweep.progress import ENDED, PlannedRun, Progress
from whisperbench.sweep.search import Search, Settings, described, search
from whisperbench.text import markdown
from whisperbench.tracking import read
from whisperbench.tracking.runs import NOTE_TAG, close_run, log_files, log_now
from whisperbench.tracking.tracked_run import TrackedRun, add_warning, close_failed, open_child_run

T = TypeVar("T")
Echo = Callable[[str | Sequence[Part]], None]

TAIL_BYTES = 4_096
OUTAGE_SECONDS, RETRY_SECONDS = 600.0, 10.0


class SweepRun:
    """Parent run of a sweep.  `command` measures a child run; the options of its configuration are appended.

    `echo` prints a result.
    """

    def __init__(
        self,
        run: TrackedRun,
        options: SweepConfig,
        progress: Progress,
        command: Sequence[str],
        listener: Listener,
        echo: Echo,
    ) -> None:
        self.client, self.run_id, self.experiment_id = run.client, run.run_id, run.experiment_id
        self.options, self.progress, self.command = options, progress, command
        self.listener, self.echo = listener, echo
        self.directory = Path(options.shared.results_dir) / f"sweep-{run.run_id[:8]}"
        self._lock = threading.RLock()  # configurations may be measured in parallel

    def measure_all(self, slots: Sequence[DeviceSlot]) -> None:
        """Measure the runs that no earlier sweep has finished, one at a time per slot, and rank all runs.

        Raises:
            SweepError: a configuration failed or was refused.
        """
        progress = self.progress
        with self._shown():
            run_in_parallel([run for run in progress.runs if run.state == "waiting"], slots, self.measure)
        self.leaderboard()
        if progress.count("failed", "refused"):
            causes = "; ".join(cause.rstrip(".") for cause in progress.causes)
            raise SweepError(f"{progress.sentence}. {causes}")
        self.listener.info(progress.sentence)

    def search(self, wanted: Search, planner: Planner) -> None:
        """Measure the settings that the search proposes; print the leaderboard and the command of the best setting.

        The first setting is planned before.

        Raises:
            SweepError: no setting was measured, or none has a WER within the limit.
        """
        progress = self.progress
        (first,) = progress.runs

        def evaluate(settings: Settings) -> Mapping[str, float] | None:
            name = described(settings)
            try:
                run = first if name == first.name else PlannedRun(wanted.config(settings), name)
            except ConfigError as error:
                self.listener.info(f"{name} is not allowed: {error}")
                return None
            if run is not first:
                planner.plan(run)
                progress.runs.append(run)
            if run.state == "waiting":
                self.measure(run, DeviceSlot(), threading.Event())
            return run.metrics or None

        with self._shown():
            best = search(wanted, evaluate)
            progress.planned = len(progress.runs)  # the space may have fewer allowed settings
        self.leaderboard()
        self.listener.info(progress.sentence)
        if best is None:
            bound = f" with a WER of at most {wanted.max_wer} %" if wanted.max_wer is not None else ""
            raise SweepError(f"No setting was measured{bound}: {progress.sentence}.")
        winner, value = command_line(wanted.config(best[0])), best[1]
        log_now(self.client, self.run_id, params={"best_command": winner})
        counted = progress.count("done", "skipped")
        self.echo(f"{wanted.sorting.metric}: {value:.2f} | best of {counted} settings\n{winner}")

    @contextlib.contextmanager
    def _shown(self) -> Iterator[None]:
        """Show the progress during the block, and log it at the end."""
        self._show()
        try:
            yield
        finally:
            self.progress.ended = True
            self._log()

    def _show(self) -> None:
        with self._lock:
            self.listener.show(self.progress)

    def _log(self) -> None:
        """Show and log the progress; a server that is not reachable for a moment does not end the sweep."""
        self._show()
        with self._lock, contextlib.suppress(TrackingError):
            progress = self.progress
            table = progress.markdown(lambda run_id: run_path(self.experiment_id, run_id))
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
            self._log()
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
        self._log()

    def _run_process(self, run: PlannedRun, slot: DeviceSlot, stop: threading.Event) -> CommandResult:
        """Run the command for one configuration until all processes of its group have ended."""
        log = self.directory / str(run.run_id) / "benchmark.log"
        require_writable(log.parent, "results_dir")

        def tick(seconds: float) -> None:
            if stop.is_set():
                raise CancelledError
            run.seconds = seconds
            run.log_line = next((line for line in reversed(tail(log, TAIL_BYTES).splitlines()) if line.strip()), "")
            self._show()

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

    def leaderboard(self) -> None:
        """Rank the measured and the skipped runs, if any, and log the files of the report."""
        ids = [each.run_id for each in self.progress.runs if each.state in ("done", "skipped") and each.run_id]
        if not ids:
            return
        records = read.get_runs(self.client, ids)
        on_gpu = any(record.params.get("gpu_count", "0") != "0" for record in records)
        options = CompareConfig(sort=self.options.objective or "wer", published="matching" if on_gpu else "none")
        try:
            origin = origin_of(self.client, "sweep", self.options)
            report = Comparison(self.client, options, self.listener).leaderboard(records, "this sweep", origin)
            self.echo(report.answer)
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
