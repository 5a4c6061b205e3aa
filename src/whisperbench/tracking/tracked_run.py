"""A run from its opening to its final status, measured by this process or by a child process that may die."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Self

from whisperbench.engines.hardware import Hardware
from whisperbench.errors import TrackingError, WhisperbenchError
from whisperbench.measure.gpu import reading_now
from whisperbench.measure.result import UtteranceResult
from whisperbench.processes.group import CommandResult
from whisperbench.processes.owner import ProcessId
from whisperbench.processes.signals import Interrupted, signals_raise
from whisperbench.processes.watch import RUN_ID
from whisperbench.results.links import run_path, runs_path
from whisperbench.results.names import CONFIG_DIGEST, FAILURE, KIND, PROGRESS, SCHEMA, SCHEMA_TAG, WARNINGS
from whisperbench.text import without_password
from whisperbench.tracking.client import Client, search_runs, serves_ui, ui_address, ui_port
from whisperbench.tracking.experiment_page import VIEW_TAG
from whisperbench.tracking.runs import (
    BUNDLE_TAG,
    PARENT_TAG,
    PROCESS_TAG,
    close_run,
    create_run,
    experiment_id_of,
    local_tags,
    log_files,
    log_now,
    open_run,
)
from whisperbench.util import typed_command

SWEEP_DIGEST = "whisperbench.sweep_digest"
REPEAT = "whisperbench.repeat"
INTERVAL_SECONDS = 5.0
EXIT_SECONDS = 1.0
"""Timeout of the wait for an unfinished request at the end of the measurement."""


@dataclasses.dataclass(frozen=True, slots=True)
class TrackedRun:
    """An open run and the client of its server."""

    client: Client
    run_id: str

    @property
    def experiment_id(self) -> str:
        return str(self.client.get_run(self.run_id).info.experiment_id)

    def where(self) -> str:
        """Links to the run and to all runs; for a database also the command that starts the UI in this environment."""
        address, experiment = ui_address(self.client), self.client.get_experiment(self.experiment_id)
        # An experiment with comparisons only has no saved view.
        runs = runs_path(experiment.experiment_id, view=VIEW_TAG in experiment.tags)
        run = run_path(experiment.experiment_id, self.run_id)
        found = f"This run: {address}/{run}\nAll runs: {address}/{runs}"
        if serves_ui(self.client):
            return found
        command = f"mlflow ui --backend-store-uri {without_password(self.client.tracking_uri)} --port {ui_port()}"
        if program := typed_command():
            command = f"{program} ui"
        return f"View the results: {command}\n{found}"


@contextlib.contextmanager
def tracked_run(
    client: Client,
    name: str,
    tags: Mapping[str, str] | None = None,
    run_id: str | None = None,
    experiment: str | None = None,
) -> Iterator[TrackedRun]:
    """Open a run for the block: `run_id`, else the run that `mlflow run` has started, else a new one.

    A new run is created in `experiment` (None = the default experiment).  The run ends as FINISHED, as FAILED if the
    block raises an exception, and as KILLED after a signal; the cause is in the tag FAILURE.  If the signal also
    interrupts `mlflow run` (3.17), that process replaces KILLED by FAILED.

    Raises:
        TrackingError: the run cannot be opened, or cannot be closed after success.
    """
    with signals_raise() as raised:
        run_id = open_run(
            client, experiment=experiment, run_id=run_id or os.environ.get(RUN_ID), name=name, tags=tags or {}
        )
        status, failure = "FAILED", None
        opened_ms, opened = time.time_ns() // 1_000_000, time.perf_counter()
        try:
            yield TrackedRun(client, run_id)
            status = "FINISHED"
        except Interrupted as interrupted:  # also from a nested `signals_raise`, which is absent from `raised`
            status, failure = "KILLED", str(interrupted)
            raise
        except BaseException as error:
            failure = str(error) if isinstance(error, WhisperbenchError) else f"{type(error).__name__}: {error}"
            raise
        finally:
            if raised:  # also if a library has converted the exception into another one
                status, failure = "KILLED", str(raised[0])
            # A change of the system time must not place the end of the run before its start.
            ended_ms = opened_ms + round(1000 * (time.perf_counter() - opened))
            # An error of the server must not replace the error of the block.
            with contextlib.suppress(TrackingError) if status != "FINISHED" else contextlib.nullcontext():
                try:
                    close_run(client, run_id, status, failure, ended_ms)
                except Interrupted as interrupted:
                    close_run(client, run_id, "KILLED", str(interrupted), ended_ms)
                    raise


def close_stale_runs(client: Client) -> list[str]:
    """Close the running runs of dead processes of this host as KILLED; returns a description of each of them."""
    if (here := ProcessId.this()) is None:
        return []
    condition = f"attributes.status = 'RUNNING' and tags.`{PROCESS_TAG}` LIKE 'host={here.host}|%'"
    closed = []
    for run in search_runs(client, condition):
        owner = ProcessId.parse(run.data.tags[PROCESS_TAG])
        if owner is not None and owner.is_dead(here):
            with contextlib.suppress(TrackingError):  # the run stays open if the server refuses
                close_run(client, run.info.run_id, "KILLED", f"process {owner.pid} on {owner.host} died")
                closed.append(f"{run.info.run_name} ({run.info.run_id}), whose process {owner.pid} is dead")
    return closed


def current_experiment(client: Client) -> str:
    """The id of the experiment for a sweep: the experiment of the run of `mlflow run`, else the default experiment."""
    if run_id := os.environ.get(RUN_ID):
        return str(client.get_run(run_id).info.experiment_id)
    return experiment_id_of(client)


def interrupted_sweep(client: Client, experiment: str, digest: str) -> str | None:
    """The newest run of this sweep that a dead process of this host left unfinished; None if a newer one finished."""
    here, condition = ProcessId.this(), f"tags.`{KIND}` = 'sweep' and tags.`{SWEEP_DIGEST}` = '{digest}'"
    for run in search_runs(client, condition, [experiment]):
        if run.info.status == "FINISHED":
            return None
        owner = ProcessId.parse(run.data.tags.get(PROCESS_TAG, ""))
        if here and owner and owner.is_dead(here):
            return str(run.info.run_id)
    return None


def open_child_run(client: Client, parent_id: str, *, name: str, config_digest: str, repeat: int) -> str:
    """Create a child run and return its id; this process owns the run until the child process takes it over."""
    tags = {PARENT_TAG: parent_id, KIND: "benchmark", SCHEMA_TAG: SCHEMA}
    tags |= {CONFIG_DIGEST: config_digest, REPEAT: str(repeat)}
    return create_run(client, client.get_run(parent_id).info.experiment_id, name, local_tags(tags))


def close_failed(client: Client, run_id: str, ended: CommandResult) -> str:
    """Close a run as FAILED with the log of its process as an artifact; returns the cause.

    The cause is the FAILURE tag of a process that exited by itself, else the description of its exit.
    """
    exited = ended.exit_status > 0 and not ended.timed_out
    failure = (client.get_run(run_id).data.tags.get(FAILURE) if exited else None) or ended.failure
    log_files(client, run_id, [ended.log])
    close_run(client, run_id, "FAILED", failure)
    return failure


def add_warning(client: Client, run_id: str, warning: str) -> None:
    """Append a warning to the warnings of a run."""
    before = client.get_run(run_id).data.tags.get(WARNINGS)
    log_now(client, run_id, tags={WARNINGS: f"{before}; {warning}" if before else warning})


class LiveProgress:
    """Logs the finished utterances of all repeats, their rate and the GPU utilisation as the tag PROGRESS.

    It is a tag because the result replaces it; metrics cannot be deleted.  The object is a context manager around the
    measurement; `on_start` and `on_result` are callbacks of the timed passes and run in the timed region.
    """

    def __init__(self, client: Client, run_id: str, hardware: Hardware) -> None:
        self._client, self._run_id, self._hardware = client, run_id, hardware
        self._finished, self._started = 0, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._log_until_stopped, name="live-progress", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.ident:
            self._thread.join(EXIT_SECONDS)

    def claim(self, bundle_id: str) -> None:
        """Tag the run with the bundle that it is measured for; an upload changes only a run with its bundle's tag."""
        log_now(self._client, self._run_id, tags={BUNDLE_TAG: bundle_id})

    def on_start(self) -> None:
        """Start the thread at the first timed pass."""
        if not self._thread.ident:
            self._started = time.perf_counter()
            self._thread.start()

    def on_result(self, _result: UtteranceResult) -> None:
        """Count a finished utterance."""
        self._finished += 1

    def _log_until_stopped(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            with contextlib.suppress(TrackingError):
                finished, seconds = self._finished, time.perf_counter() - self._started
                text = f"{finished:,} utterances finished, {finished / seconds:.2f} utterances/s"
                gpu = reading_now(self._hardware)
                if gpu and gpu.util_mean is not None:
                    text += f", GPU {gpu.util_mean:.0f} % busy"
                log_now(self._client, self._run_id, tags={PROGRESS: text})
