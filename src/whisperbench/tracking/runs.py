"""Opening, filling and closing of runs on an MLflow tracking server.

A result is logged from its bundle with the bundle's timestamps, so that logging it again, or later, gives the same run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shlex
import textwrap
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from whisperbench.config.benchmark import OPTIONS
from whisperbench.errors import ConfigError, TrackingError
from whisperbench.processes.owner import ProcessId
from whisperbench.processes.watch import RUN_ID
from whisperbench.results.bundle import Bundle, Origin, artifact_sizes
from whisperbench.results.environment import git_commit
from whisperbench.results.keys import key
from whisperbench.results.names import COMMIT, FAILURE, PROGRESS, REPEATS, SIGNATURE
from whisperbench.results.run_info import Dataset as Data
from whisperbench.results.run_info import RunData
from whisperbench.results.summary import IN_PROGRESS
from whisperbench.results.transcripts import TABLE
from whisperbench.text import escape_control, redact, shortened, without_password
from whisperbench.tracking.client import RETRIES, Client, error_code

if TYPE_CHECKING:
    from mlflow.entities import Run

BUNDLE_TAG = "whisperbench.bundle"
PROCESS_TAG = "whisperbench.owner"
PARENT_TAG = "mlflow.parentRunId"
TABLE_TAG = "mlflow.loggedArtifacts"
NOTE_TAG = "mlflow.note.content"
USER_TAG = "mlflow.user"
DEFAULT_EXPERIMENT = "Default"
"""MLflow's default experiment, which `mlflow run` uses; a run cannot be moved to another one after its start."""
MAX_TAG_LENGTH, MAX_PARAM_LENGTH = 5_000, 6_000
"""Limits of MLflow 3; a longer param is cut."""
NOTE_WIDTH = 100
"""Characters per line of the cause of a failure in the description, because MLflow does not wrap code blocks."""
MAX_DATASET_ATTEMPTS = 5
CREATE_LOCK = threading.Lock()


def experiment_id_of(client: Client, name: str | None = None) -> str:
    """The id of an experiment, which is created if it does not exist.

    `name` = None selects the one of `mlflow run`: MLFLOW_EXPERIMENT_ID, else MLFLOW_EXPERIMENT_NAME, else `Default`.
    """
    if name is None and (experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID")):
        return experiment_id
    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except TrackingError as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":  # another process may have created it since
                raise
        found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


def create_run(
    client: Client, experiment_id: str, name: str, tags: Mapping[str, str], started_ms: int | None = None
) -> str:
    """Create a run and return its id.

    The request is not retried, because a server that answers after the timeout may have created the run already.
    """
    with CREATE_LOCK:  # threads of a sweep share the environment variable
        retries = os.environ.get(RETRIES, "1")
        os.environ[RETRIES] = "0"
        try:
            run = client.create_run(experiment_id, start_time=started_ms, run_name=name, tags=dict(tags))
        finally:
            os.environ[RETRIES] = retries
    return str(run.info.run_id)


def open_run(client: Client, *, experiment: str | None, run_id: str | None, name: str, tags: Mapping[str, str]) -> str:
    """Create a run in `experiment` (None = the default experiment), or take over the run `run_id`; returns the id.

    A run that is taken over keeps its experiment, and its name unless MLflow has generated it.  If it has failed, for
    example as a sweep that was interrupted, it is running again.

    Raises:
        ConfigError: the run already holds a result.
    """
    if run_id is None:
        return create_run(client, experiment_id_of(client, experiment), name, local_tags(tags))
    run = unused_run(client, run_id)
    log_now(client, run_id, tags={**_redacted(run.data.tags), **tags, **_own_tags()})
    client.update_run(run_id, "RUNNING", name if _is_generated(run.info.run_name or "") else None)
    if FAILURE in run.data.tags:
        client.delete_tag(run_id, FAILURE)
    return run_id


def unused_run(client: Client, run_id: str) -> Run:
    """The run `run_id`, which a command may fill; a job scheduler may name the same run to several commands.

    Raises:
        ConfigError: the run already holds a result.
    """
    run = client.get_run(run_id)
    if run.info.status == "FINISHED" or SIGNATURE in run.data.tags:
        raise ConfigError(
            f"{RUN_ID}={run_id} names a run that already holds a result, which must not change. Unset {RUN_ID}, so "
            "that this command creates a run of its own."
        )
    return run


def _is_generated(name: str) -> bool:
    """Whether a run's name is empty or was generated by MLflow, like `dapper-stoat-918`."""
    from mlflow.utils import name_utils

    adjective, noun, number, *_ = (*name.split("-", 2), "", "", "")
    known = adjective in name_utils._GENERATOR_PREDICATES and noun in name_utils._GENERATOR_NOUNS
    return not name or (known and number.isdecimal())


def local_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """`tags`, MLflow's tags of source and user without secrets, and the commit of this package."""
    from mlflow.tracking.context.registry import resolve_tags

    found: dict[str, str] = resolve_tags(dict(tags))
    # MLflow searches for a repository from sys.argv[0] upwards, but a console script is outside the checkout.
    if commit := git_commit():
        found[COMMIT] = commit
    return {**found, **_redacted(found), **_own_tags()}


def _own_tags() -> dict[str, str]:
    """The owner tag of this process, and the user's name on the server, because the OS user may be shared (root)."""
    from mlflow.utils.credentials import read_mlflow_creds

    process, name = ProcessId.this(), read_mlflow_creds().username
    return {**({PROCESS_TAG: str(process)} if process else {}), **({USER_TAG: name} if name else {})}


def _redacted(tags: Mapping[str, str]) -> dict[str, str]:
    """Replacements for the tags that contain a secret, for example a git remote with a token."""
    return {tag: clean for tag, value in tags.items() if (clean := redact(value, os.environ)) != value}


def origin_of(client: Client, run_id: str) -> Origin:
    """The experiment, id and tags of a run, for the bundle that will be logged to it."""
    run = client.get_run(run_id)
    return Origin(client.get_experiment(run.info.experiment_id).name, run_id, dict(run.data.tags))


def log_files(client: Client, run_id: str, paths: Iterable[Path]) -> None:
    """Log files as artifacts in the root folder of a run."""
    for path in paths:
        client.log_artifact(run_id, str(path))


def log_now(
    client: Client,
    run_id: str,
    *,
    metrics: Mapping[str, float] | None = None,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    step: int = 0,
    at_ms: int = 0,
) -> None:
    """Log metrics (at `at_ms`; 0 = now), tags, and the params that the run does not have yet."""
    from mlflow.entities import Metric, Param, RunTag

    at_ms = at_ms or time.time_ns() // 1_000_000
    known = client.get_run(run_id).data.params if params else {}
    client.log_batch(
        run_id,
        metrics=[Metric(name, value, at_ms, step) for name, value in (metrics or {}).items()],
        params=[Param(name, value) for name, value in (params or {}).items() if name not in known],
        tags=[RunTag(name, value) for name, value in (tags or {}).items()],
    )


def log_start(client: Client, run_id: str, start: RunData) -> None:
    """Log the data that is known before the measurement; logging the bundle completes it.

    Raises:
        ConfigError: the run holds params of another measurement.
    """
    stored = client.get_run(run_id).data.params
    if other := other_params(stored, start.params):
        raise ConfigError(
            f"{RUN_ID}={run_id} names a run of another measurement, with {other[0]}={stored[other[0]]} instead of "
            f"{start.params[other[0]]}. Unset {RUN_ID}, so that this command creates a run of its own."
        )
    _log_data(client, run_id, start)


def start_system_metrics(client: Client, run_id: str, until: contextlib.ExitStack) -> None:
    """Log MLflow's system metrics until `until` closes, if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is true."""
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

    if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(run_id, tracking_uri=client.tracking_uri)
        monitor.start()
        until.callback(monitor.finish)


def log_bundle(client: Client, run_id: str, bundle: Bundle) -> None:
    """Log a bundle, which the caller has locked, and check that the server returns it; repeating changes nothing.

    Raises:
        TrackingError: the run lacks a part of the bundle afterwards, or holds another value.
    """
    _log_data(client, run_id, dataclasses.replace(bundle.contents, tags=_tags_of(bundle)))
    if PROGRESS in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, PROGRESS)
    client.log_artifacts(run_id, str(bundle.artifacts))
    if missing := missing_parts(client, run_id, bundle):
        raise TrackingError(
            f"The tracking server {without_password(str(client.tracking_uri))} lacks {len(missing)} part(s) of "
            f"{bundle.directory} after they were sent, for example {missing[0]}. A proxy may have answered instead of "
            "the server. Check the connection."
        )


def missing_parts(client: Client, run_id: str, bundle: Bundle) -> list[str]:
    """The params, metrics, tags, files and the data set of a bundle that its run does not have.

    A file of another size is missing.  Values of tags are not compared, because users edit them.

    Raises:
        TrackingError: the run holds another param or metric.
    """
    contents, run = bundle.contents, client.get_run(run_id)
    params, metrics, tags = run.data.params, run.data.metrics, run.data.tags
    other = other_params(params, contents.params)
    other += [name for name, value in contents.metrics.items() if not math.isclose(metrics.get(name, value), value)]
    if other:
        raise TrackingError(
            f"Run {run_id} holds other values than {bundle.directory}, for example of {other[0]}. One of them was "
            "changed after the measurement, so the run is not changed."
        )
    files = artifact_sizes(bundle.artifacts)
    folders = {name.rpartition("/")[0] for name in files}
    stored = {each.path: each.file_size for folder in folders for each in client.list_artifacts(run_id, folder or None)}
    data_sets = [each.dataset.digest for each in run.inputs.dataset_inputs]
    return [
        *(f"the param {name}" for name in contents.params.keys() - params.keys()),
        *(f"the metric {name}" for name in contents.metrics.keys() - metrics.keys()),
        *(f"the tag {name}" for name in _tags_of(bundle).keys() - tags.keys()),
        *(["the data set"] if contents.dataset.digest not in data_sets else []),
        # The size is None if the artifact store does not report it.
        *(f"the file {name}" for name, size in files.items() if stored.get(name, -1) not in (None, size)),
    ]


def other_params(stored: Mapping[str, str], params: Mapping[str, str]) -> list[str]:
    """Names of the params with another stored value.

    A value that `mlflow run` has logged before may be quoted for a shell, spelled in another way, or be `auto`.
    """

    def agree(name: str) -> bool:
        if stored[name] == params[name][:MAX_PARAM_LENGTH]:
            return True
        try:
            each = OPTIONS[name]
            found = each.parse("".join(shlex.split(stored[name])))
            return bool(found == each.parse(params[name]) or (each.param == "resolved" and found == each.default))
        except (KeyError, ValueError, ConfigError):
            return False

    return [name for name in params if name in stored and not agree(name)]


def _tags_of(bundle: Bundle) -> dict[str, str]:
    tags = {**bundle.contents.tags, BUNDLE_TAG: bundle.id, TABLE_TAG: json.dumps([{"path": TABLE, "type": "table"}])}
    repeated = {name: values for name, values in bundle.contents.history.items() if len(values) > 1}
    if repeated:
        tags[REPEATS] = key(**{name: ",".join(f"{value:.6g}" for value in values) for name, values in repeated.items()})
    return tags


def _log_data(client: Client, run_id: str, data: RunData) -> None:
    """Log params, metrics, tags, description and data set; params and a data set that the run has stay."""
    tags = {**data.tags, NOTE_TAG: data.description}
    log_now(client, run_id, params=data.params, metrics=data.metrics, tags=tags, at_ms=data.ended_ms)
    _log_dataset(client, run_id, data.dataset)


def _log_dataset(client: Client, run_id: str, data: Data) -> None:
    """Log the data set of a run unless the run has it.

    MLflow searches for a data set and then inserts it in a second transaction.  If two runs log the same one
    concurrently, one request fails and is repeated.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if any(each.dataset.digest == data.digest for each in client.get_run(run_id).inputs.dataset_inputs):
        return
    profile = json.dumps({"split": data.split, "num_rows": data.rows})
    dataset = Dataset(data.name, data.digest, "local", json.dumps({"uri": data.source}), profile=profile)
    inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", data.split)])]
    for remaining in reversed(range(MAX_DATASET_ATTEMPTS)):
        try:
            client.log_inputs(run_id, inputs)
        except TrackingError as error:
            if not remaining or not any(name in str(error) for name in ("IntegrityError", "UniqueViolation")):
                raise
        else:
            return


def close_run(
    client: Client, run_id: str, status: str, failure: str | None = None, ended_ms: int | None = None
) -> None:
    """Close a run as FINISHED, FAILED or KILLED, now or at `ended_ms`.

    The cause `failure` is stored in the tag FAILURE, and as a code block at the top of the run's description.
    """
    client.set_terminated(run_id, status, ended_ms)
    if failure is not None:
        text = redact(failure, os.environ).replace("\0", "\\x00")  # Postgres rejects NUL
        client.set_tag(run_id, FAILURE, shortened(text, MAX_TAG_LENGTH) or "unknown")
        cause = shortened(text, MAX_TAG_LENGTH // 2).splitlines()
        lines = [part for line in cause for part in textwrap.wrap(escape_control(line), NOTE_WIDTH) or [""]]
        happened = "was killed" if status == "KILLED" else "failed"
        note = "\n".join([f"**The run {happened}.**", "", *(f"    {line}" for line in lines)])
        before = client.get_run(run_id).data.tags.get(NOTE_TAG, "")
        if not before.startswith(note):  # a sweep may close a run that its process has closed before
            client.set_tag(run_id, NOTE_TAG, f"{note}\n\n{before.removeprefix(IN_PROGRESS)}"[:MAX_TAG_LENGTH])
