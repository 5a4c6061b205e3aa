"""Parent and child runs of a sweep: creation, search for earlier ones, and closing.

The sweep creates a child run before it starts the process that fills it.  It can therefore close the run with the
right status if that process dies.
"""

from __future__ import annotations

import os

from whisperbench.processes.group import CommandResult
from whisperbench.processes.owner import ProcessId
from whisperbench.processes.watch import RUN_ID
from whisperbench.results.names import CONFIG_DIGEST, FAILURE, KIND, SCHEMA, SCHEMA_TAG, WARNINGS
from whisperbench.tracking.client import Client, search_runs
from whisperbench.tracking.runs import (
    PARENT_TAG,
    PROCESS_TAG,
    close_run,
    create_run,
    experiment_id_of,
    local_tags,
    log_files,
    log_now,
)

SWEEP_DIGEST = "whisperbench.sweep_digest"
REPEAT = "whisperbench.repeat"


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


def reopen(client: Client, run_id: str) -> None:
    """Set an interrupted run to RUNNING and delete its FAILURE tag."""
    client.update_run(run_id, status="RUNNING")
    if FAILURE in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, FAILURE)


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
