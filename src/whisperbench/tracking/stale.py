"""Closing of runs that a dead process of this host has left in the status RUNNING."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from whisperbench.errors import TrackingError
from whisperbench.processes.owner import ProcessId
from whisperbench.tracking.client import search_experiments, search_runs, tracking_errors
from whisperbench.tracking.runs import PROCESS_TAG, close_run

if TYPE_CHECKING:
    from mlflow import MlflowClient


def close_stale_runs(client: MlflowClient) -> list[str]:
    """Close the running runs of dead processes of this host as KILLED; returns a description of each of them.

    Raises:
        TrackingError: the running runs cannot be listed.
    """
    if (here := ProcessId.this()) is None:
        return []
    condition = f"attributes.status = 'RUNNING' and tags.`{PROCESS_TAG}` LIKE 'host={here.host}|%'"
    with tracking_errors(client, "list the running runs"):
        experiments = [each.experiment_id for each in search_experiments(client)]
        running = search_runs(client, experiments, condition)
    closed = []
    for run in running:
        owner = ProcessId.parse(run.data.tags[PROCESS_TAG])
        if owner is not None and owner.is_dead(here):
            with contextlib.suppress(TrackingError):  # the run stays open if the server refuses
                close_run(client, run.info.run_id, "KILLED", f"process {owner.pid} on {owner.host} died")
                closed.append(f"{run.info.run_name} ({run.info.run_id}), whose process {owner.pid} is dead")
    return closed
