"""Runs that nobody is working on any more: left RUNNING by a process of this host that is dead."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

from whisperbench.errors import TrackingError
from whisperbench.processes.owner import ProcessId
from whisperbench.tracking.client import search_experiments, search_runs, tracking_errors
from whisperbench.tracking.runs import PROCESS_TAG, close_run

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclasses.dataclass(frozen=True, slots=True)
class StaleRun:
    run_id: str
    name: str
    process: ProcessId


def stale_runs(client: MlflowClient) -> list[StaleRun]:
    """Every RUNNING run whose process was one of this host and is dead."""
    here = ProcessId.this()
    if here is None:
        return []
    condition = f"attributes.status = 'RUNNING' and tags.`{PROCESS_TAG}` LIKE 'host={here.host}|%'"
    with tracking_errors(client, "does not list its running runs"):
        experiments = [e.experiment_id for e in search_experiments(client)]
        running = search_runs(client, experiments, condition)
    found = []
    for run in running:
        process = ProcessId.parse(run.data.tags[PROCESS_TAG])
        if process is not None and process.is_dead(here):
            found.append(StaleRun(run.info.run_id, run.info.run_name or run.info.run_id, process))
    return found


def close_stale_runs(client: MlflowClient) -> list[StaleRun]:
    """End them as KILLED; those that were closed. One that the server does not let go stays as it is."""
    closed = []
    for run in stale_runs(client):
        with contextlib.suppress(TrackingError):
            close_run(client, run.run_id, "KILLED", f"process {run.process.pid} on {run.process.host} died")
            closed.append(run)
    return closed
