"""Parent and child runs of a sweep: creation, search for earlier ones, and closing.

The sweep creates a child run before it starts the process that fills it.  It can therefore close the run with the
right status if that process dies.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from whisperbench.processes.group import CommandResult
from whisperbench.processes.owner import ProcessId
from whisperbench.processes.watch import RUN_ID
from whisperbench.results.names import CONFIG_DIGEST, FAILURE, KIND, SCHEMA, SCHEMA_TAG, WARNINGS
from whisperbench.tracking.client import get_run, search_runs, tracking_errors
from whisperbench.tracking.runs import (
    PROCESS_TAG,
    close_run,
    create_run,
    experiment_id_of,
    local_tags,
    log_files,
    log_now,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT = "mlflow.parentRunId"
SWEEP_DIGEST = "whisperbench.sweep_digest"
REPEAT = "whisperbench.repeat"


@dataclasses.dataclass(frozen=True, slots=True)
class FinishedRun:
    """A finished benchmark run; `seconds` is its duration, which includes engine start and logging."""

    run_id: str
    seconds: float
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


def current_experiment(client: MlflowClient) -> str:
    """The id of the experiment for a sweep: the experiment of the run of `mlflow run`, else the default experiment."""
    if run_id := os.environ.get(RUN_ID):
        return experiment_of(client, run_id)
    with tracking_errors(client, "return the experiment"):
        return experiment_id_of(client)


def experiment_of(client: MlflowClient, run_id: str) -> str:
    """The id of a run's experiment."""
    return str(get_run(client, run_id).info.experiment_id)


def interrupted_sweep(client: MlflowClient, experiment: str, digest: str) -> str | None:
    """The newest run of this sweep that a dead process of this host left unfinished; None if a newer one finished."""
    here = ProcessId.this()
    for run in _search(client, experiment, f"tags.`{KIND}` = 'sweep' and tags.`{SWEEP_DIGEST}` = '{digest}'"):
        if run.info.status == "FINISHED":
            return None
        owner = ProcessId.parse(run.data.tags.get(PROCESS_TAG, ""))
        if here and owner and owner.is_dead(here):
            return str(run.info.run_id)
    return None


def reopen(client: MlflowClient, run_id: str) -> None:
    """Set an interrupted run to RUNNING and delete its FAILURE tag."""
    with tracking_errors(client, "reopen the run"):
        client.update_run(run_id, status="RUNNING")
        if FAILURE in client.get_run(run_id).data.tags:
            client.delete_tag(run_id, FAILURE)


def open_child_run(client: MlflowClient, parent_id: str, *, name: str, config_digest: str, repeat: int) -> str:
    """Create a child run and return its id; this process owns the run until the child process takes it over."""
    tags = {PARENT: parent_id, KIND: "benchmark", SCHEMA_TAG: SCHEMA}
    tags |= {CONFIG_DIGEST: config_digest, REPEAT: str(repeat)}
    with tracking_errors(client, "open a run"):
        return create_run(client, experiment_of(client, parent_id), name, local_tags(tags))


def close_failed(client: MlflowClient, run_id: str, ended: CommandResult) -> str:
    """Close a run as FAILED with the log of its process as an artifact; returns the cause.

    The cause is the FAILURE tag of a process that exited by itself, else the description of its exit.
    """
    logged = get_run(client, run_id).data.tags.get(FAILURE) if ended.exit_status > 0 and not ended.timed_out else None
    failure = logged or ended.failure
    log_files(client, run_id, [ended.log])
    close_run(client, run_id, "FAILED", failure)
    return failure


def add_warning(client: MlflowClient, run_id: str, warning: str) -> None:
    """Append a warning to the warnings of a run.

    Raises:
        TrackingError: the server cannot be reached or refuses.
    """
    before = get_run(client, run_id).data.tags.get(WARNINGS)
    log_now(client, run_id, tags={WARNINGS: f"{before}; {warning}" if before else warning})


def finished_runs(client: MlflowClient, experiment: str) -> list[FinishedRun]:
    """The finished benchmark runs of an experiment, the oldest first; those of a sweep have the tag PARENT."""
    condition = f"attributes.status = 'FINISHED' and tags.`{KIND}` = 'benchmark'"
    return [
        FinishedRun(
            run_id=run.info.run_id,
            seconds=((run.info.end_time or 0) - (run.info.start_time or 0)) / 1000,
            params=run.data.params,
            metrics=run.data.metrics,
            tags=run.data.tags,
        )
        for run in reversed(_search(client, experiment, condition))
    ]


def _search(client: MlflowClient, experiment: str, condition: str) -> list[Any]:
    """The runs that meet an MLflow filter, the newest first."""
    with tracking_errors(client, "search the runs"):
        return search_runs(client, [experiment], condition)
