"""The runs of a sweep on the tracking server: opened, found again, and closed when nobody else can.

A child run is opened by the sweep and filled by the process that it starts, so that it has the right
status whatever happens to that process.  Tags say which process of which host a run belongs to.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from whisperbench.processes.group import CommandResult
from whisperbench.processes.owner import ProcessId
from whisperbench.processes.watch import RUN_ID
from whisperbench.results.names import CONFIG_DIGEST, FAILURE, KIND, SCHEMA, SCHEMA_TAG, WARNINGS
from whisperbench.tracking.client import search_runs, tracking_errors
from whisperbench.tracking.runs import NOTE_TAG, PROCESS_TAG, close_run, local_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT = "mlflow.parentRunId"
SWEEP_DIGEST = "whisperbench.sweep_digest"
REPEAT = "whisperbench.repeat"


@dataclasses.dataclass(frozen=True, slots=True)
class FinishedRun:
    """A finished child run of any sweep of the experiment; `seconds` with engine start and logging."""

    run_id: str
    seconds: float
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """A run's status, why it failed (None where no reason is known), and its metrics."""

    status: str
    failure: str | None
    metrics: Mapping[str, float]


def current_experiment(client: MlflowClient) -> str | None:
    """The id of the experiment that a sweep's runs belong to; None while there is none of that name."""
    if run_id := os.environ.get(RUN_ID):
        return experiment_of(client, run_id)
    with tracking_errors(client, "does not list its experiments"):
        found = client.get_experiment_by_name(os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default")
    return found.experiment_id if found else None


def experiment_of(client: MlflowClient, run_id: str) -> str:
    """The id of the experiment of a run."""
    with tracking_errors(client, "does not give the run"):
        return str(client.get_run(run_id).info.experiment_id)


def interrupted_sweep(client: MlflowClient, experiment: str, digest: str) -> str | None:
    """The newest run of this sweep on this host that did not get to its end, and that nothing works on."""
    condition = f"tags.`{KIND}` = 'sweep' and tags.`{SWEEP_DIGEST}` = '{digest}'"
    for run in _search(client, experiment, condition):
        if run.info.status == "FINISHED":
            return None
        if _is_dead(run):
            return str(run.info.run_id)
    return None


def reopen(client: MlflowClient, run_id: str) -> None:
    """Continue a run that was interrupted: RUNNING again, and without the cause of its end."""
    with tracking_errors(client, "does not reopen the run"):
        client.update_run(run_id, status="RUNNING")
        if FAILURE in client.get_run(run_id).data.tags:
            client.delete_tag(run_id, FAILURE)


def open_child_run(client: MlflowClient, parent_id: str, *, name: str, config_digest: str, repeat: int) -> str:
    """A child run, RUNNING, which a process of its own will fill; its id."""
    process = ProcessId.this()
    tags = {
        PARENT: parent_id,
        KIND: "benchmark",
        SCHEMA_TAG: SCHEMA,
        CONFIG_DIGEST: config_digest,
        REPEAT: str(repeat),
        **({PROCESS_TAG: str(process)} if process else {}),  # until its own process takes it over
    }
    with tracking_errors(client, "refuses to open a run"):
        run = client.create_run(experiment_of(client, parent_id), run_name=name, tags=local_tags(tags))
        return str(run.info.run_id)


def state_of(client: MlflowClient, run_id: str) -> State:
    """How a run stands now."""
    with tracking_errors(client, "does not give the run"):
        run = client.get_run(run_id)
    return State(run.info.status, run.data.tags.get(FAILURE), run.data.metrics)


def close_failed(client: MlflowClient, run_id: str, ended: CommandResult) -> str:
    """FAILED with the cause in a tag and the process's log as an artifact; the cause, which it may have told itself."""
    told = state_of(client, run_id).failure if ended.exit_status > 0 and not ended.timed_out else None
    failure = told or ended.failure
    with tracking_errors(client, "does not take the log"):
        client.log_artifact(run_id, str(ended.log))
    close_run(client, run_id, "FAILED", failure)
    return failure


def add_warning(client: MlflowClient, run_id: str, warning: str) -> None:
    """Note in a run's tag what makes it doubtful, after what it says itself.

    Raises:
        TrackingError: the server is away or refuses.
    """
    with tracking_errors(client, "does not take a tag"):
        said = client.get_run(run_id).data.tags.get(WARNINGS)
        client.set_tag(run_id, WARNINGS, f"{said}; {warning}" if said else warning)


def finished_child_runs(client: MlflowClient, experiment: str) -> list[FinishedRun]:
    """Every finished child run of a sweep, the oldest first."""
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
        if PARENT in run.data.tags
    ]


def log_progress(client: MlflowClient, run_id: str, metrics: Mapping[str, float], note: str, step: int) -> None:
    """The counts as metrics, and the table so far as the description of the run."""
    from mlflow.entities import Metric, RunTag

    now = time.time_ns() // 1_000_000
    with tracking_errors(client, "does not take the progress"):
        found = [Metric(name, value, now, step) for name, value in metrics.items()]
        client.log_batch(run_id, metrics=found, tags=[RunTag(NOTE_TAG, note)])


def log_best(client: MlflowClient, run_id: str, metrics: Mapping[str, float]) -> None:
    """What the best of a sweep's runs have, in the sweep's own run."""
    from mlflow.entities import Metric

    now = time.time_ns() // 1_000_000
    with tracking_errors(client, "does not take the best result"):
        client.log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in metrics.items()])


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, str]) -> None:
    """Params that the run does not have yet: `mlflow run` has logged those that it declares."""
    from mlflow.entities import Param

    with tracking_errors(client, "does not take the params"):
        known = client.get_run(run_id).data.params
        client.log_batch(run_id, params=[Param(k, v) for k, v in params.items() if k not in known])


def _is_dead(run: Any) -> bool:
    here, owner = ProcessId.this(), ProcessId.parse(run.data.tags.get(PROCESS_TAG, ""))
    return here is not None and owner is not None and owner.is_dead(here)


def _search(client: MlflowClient, experiment: str, condition: str) -> list[Any]:
    """Runs that meet a condition, the newest first."""
    with tracking_errors(client, "does not search its runs"):
        return search_runs(client, [experiment], condition)
