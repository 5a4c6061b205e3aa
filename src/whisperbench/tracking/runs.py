"""Runs on an MLflow tracking server: a run is opened, filled from a result bundle, and closed.

Everything is logged from the bundle on disk with the bundle's timestamps.  A bundle that is logged twice, or later,
therefore gives the same run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import textwrap
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from whisperbench.errors import TrackingError
from whisperbench.processes.owner import ProcessId
from whisperbench.results.bundle import Bundle, Origin
from whisperbench.results.environment import git_commit
from whisperbench.results.names import FAILURE, REPEATS
from whisperbench.results.record import spread_percent
from whisperbench.results.run_data import RunData
from whisperbench.results.run_info import Dataset as Data
from whisperbench.results.transcripts import TABLE
from whisperbench.text import escape_control, redact, without_password
from whisperbench.tracking.client import (
    CLOSE_SECONDS,
    FILL_SECONDS,
    RETRIES,
    call_with_timeout,
    serves_ui,
    tracking_errors,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

BUNDLE_TAG = "whisperbench.bundle"
PROCESS_TAG = "whisperbench.owner"
TABLE_TAG = "mlflow.loggedArtifacts"
NOTE_TAG = "mlflow.note.content"
USER_TAG = "mlflow.user"
COMMIT_TAG = "mlflow.source.git.commit"
DEFAULT_EXPERIMENT = "whisperbench"
METRICS_PER_BATCH = 1_000
MAX_TAG_LENGTH = 5_000
NOTE_WIDTH = 100
"""Characters per line of the cause in a description: MLflow does not wrap code."""
MAX_COLLISIONS = 5
CREATE_LOCK = threading.Lock()


def experiment_id_of(client: MlflowClient, name: str | None = None) -> str:
    """The id of an experiment, which is created if it does not exist.

    Without a name it is the default experiment: MLFLOW_EXPERIMENT_ID, else the one that MLFLOW_EXPERIMENT_NAME names,
    else `whisperbench`.
    """
    from mlflow.exceptions import MlflowException

    if name is None:
        if experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return experiment_id
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
    if (found := client.get_experiment_by_name(name)) is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process was faster
    return str(found.experiment_id)


def create_run(
    client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str], started_ms: int | None = None
) -> str:
    """Create a run and return its id.

    The request is not retried: a server that answered too late has created the run, and a second request would create
    another one.
    """
    with CREATE_LOCK:  # a sweep creates runs in several threads
        retries = os.environ.get(RETRIES, "1")
        os.environ[RETRIES] = "0"
        try:
            run = client.create_run(experiment_id, start_time=started_ms, run_name=name, tags=dict(tags))
        finally:
            os.environ[RETRIES] = retries
    return str(run.info.run_id)


def open_run(
    client: MlflowClient, *, experiment: str | None, run_id: str | None, name: str, tags: Mapping[str, str]
) -> str:
    """Create a run in `experiment` (None: the default one), or take over the run `run_id`; returns its id.

    A run of `mlflow run` keeps its experiment, and its name if the user chose it.
    """
    with tracking_errors(client, "open a run"):
        if run_id is None:
            return create_run(client, experiment_id_of(client, experiment), name, local_tags(tags))
        run = client.get_run(run_id)
        log_now(client, run_id, tags={**_redacted(run.data.tags), **tags, **_own_tags()})
        if _is_generated(run.info.run_name or ""):
            client.update_run(run_id, name=name)
        return run_id


def _is_generated(name: str) -> bool:
    """Whether a run's name is empty or one that MLflow generates, like `dapper-stoat-918`."""
    from mlflow.utils import name_utils

    adjective, noun, number, *_ = (*name.split("-", 2), "", "", "")
    known = adjective in name_utils._GENERATOR_PREDICATES and noun in name_utils._GENERATOR_NOUNS
    return not name or (known and number.isdecimal())


def local_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """`tags` and those that MLflow adds (source and user), without secrets, and with the commit of this package."""
    from mlflow.tracking.context.registry import resolve_tags

    found: dict[str, str] = resolve_tags(dict(tags))
    # MLflow looks for a repository around sys.argv[0], and a console script is outside of it.
    commit = git_commit()
    return {**found, **({COMMIT_TAG: commit} if commit else {}), **_redacted(found), **_own_tags()}


def _own_tags() -> dict[str, str]:
    """This process, and the user's name on the server (on rented hosts every user is root)."""
    from mlflow.utils.credentials import read_mlflow_creds

    process, name = ProcessId.this(), read_mlflow_creds().username
    return {**({PROCESS_TAG: str(process)} if process else {}), **({USER_TAG: name} if name else {})}


def _redacted(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that hold a secret, for example a git remote with a token, redacted."""
    return {tag: clean for tag, value in tags.items() if (clean := redact(value, os.environ)) != value}


def origin_of(client: MlflowClient, run_id: str) -> Origin:
    """The run, its experiment and its tags, for the bundle that will be logged to it."""
    with tracking_errors(client, "return the run"):
        run = client.get_run(run_id)
        experiment = client.get_experiment(run.info.experiment_id)
    return Origin(experiment.name, run_id, dict(run.data.tags))


def log_environment(client: MlflowClient, run_id: str, text: str) -> None:
    """Log environment.txt as the first artifact, which shows before the measurement that artifacts can be written."""
    with tracking_errors(client, "store artifacts"):
        client.log_text(run_id, text, "environment.txt")


def log_files(client: MlflowClient, run_id: str, paths: Iterable[Path]) -> None:
    """Log files as artifacts in the top folder of a run."""
    with tracking_errors(client, "store artifacts"):
        for path in paths:
            client.log_artifact(run_id, str(path))


def log_now(
    client: MlflowClient,
    run_id: str,
    *,
    metrics: Mapping[str, float] | None = None,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    step: int = 0,
    at_ms: int | None = None,
) -> None:
    """Log metrics (at `at_ms`, by default now), tags, and the params that the run does not have yet.

    Raises:
        TrackingError: for every error, because MLflow's libraries raise errors of their own in a thread at exit.
    """
    from mlflow.entities import Metric, Param, RunTag

    at_ms = at_ms or time.time_ns() // 1_000_000
    with tracking_errors(client, "log to the run"):
        known = client.get_run(run_id).data.params if params else {}
        client.log_batch(
            run_id,
            metrics=[Metric(name, value, at_ms, step) for name, value in (metrics or {}).items()],
            params=[Param(name, value) for name, value in (params or {}).items() if name not in known],
            tags=[RunTag(name, value) for name, value in (tags or {}).items()],
        )


def log_start(client: MlflowClient, run_id: str, start: RunData) -> None:
    """Log what is known before the measurement; the bundle replaces it later."""
    log_now(client, run_id, params=start.params, tags={**start.tags, NOTE_TAG: start.description})
    if start.dataset:
        with tracking_errors(client, "log the data set"):
            _log_dataset(client, run_id, start.dataset)


def start_system_metrics(client: MlflowClient, run_id: str, until: contextlib.ExitStack) -> None:
    """Start MLflow's system metrics if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING asks for them; they end with `until`."""
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

    if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(run_id, tracking_uri=client.tracking_uri)
        monitor.start()
        until.callback(monitor.finish)


def log_bundle(client: MlflowClient, run_id: str, bundle: Bundle) -> None:
    """Fill a run from a bundle that is locked meanwhile; a second call changes nothing.

    Raises:
        TrackingError: the server went away or refused; the bundle is untouched.
        BundleError: another process is logging the bundle.
    """
    with bundle.locked(), tracking_errors(client, "log the result"):
        fill_run(client, run_id, bundle)


def fill_run(client: MlflowClient, run_id: str, bundle: Bundle) -> None:
    """Log everything that a bundle holds and check that its files are stored.

    Raises:
        TrackingError: files are missing afterwards, or the calls took ten minutes.
    """

    def fill() -> list[str]:
        _fill(client, run_id, bundle)
        return missing_files(client, run_id, bundle)

    if missing := call_with_timeout(FILL_SECONDS, fill, str(client.tracking_uri)):
        raise TrackingError(
            f"The tracking server {without_password(str(client.tracking_uri))} does not hold every file of "
            f"{bundle.directory}: it lacks {len(missing)} file(s), the first is {missing[0]}. A proxy may have "
            "answered in place of the server. Check what is between this host and the server."
        )


def missing_files(client: MlflowClient, run_id: str, bundle: Bundle) -> list[str]:
    """The bundle's files that the run lacks or holds in another size."""
    stored: dict[str, int | None] = {}
    folders = [""]
    while folders:
        for each in client.list_artifacts(run_id, folders.pop() or None):
            if each.is_dir:
                folders.append(each.path)
            else:
                stored[each.path] = each.file_size  # None where the artifact store does not report sizes
    files = {str(path.relative_to(bundle.artifacts)): path for path in bundle.artifacts.rglob("*") if path.is_file()}
    return sorted(name for name, path in files.items() if stored.get(name, -1) not in (None, path.stat().st_size))


def _fill(client: MlflowClient, run_id: str, bundle: Bundle) -> None:
    from mlflow.entities import Metric

    contents = bundle.contents
    tags = {**contents.tags, BUNDLE_TAG: bundle.id, NOTE_TAG: contents.description}
    tags[TABLE_TAG] = json.dumps([{"path": TABLE, "type": "table"}])
    metrics = dict(contents.metrics)
    if len(rates := contents.history.get("reqs_per_sec", ())) > 1:
        metrics[f"{REPEATS}spread_percent"] = spread_percent(rates)
    log_now(client, run_id, params=contents.params, tags=tags, metrics=metrics, at_ms=contents.ended_ms)
    # MLflow draws a metric with several steps as a line and one with a single step as a bar, which is easier to
    # compare. The values of the repeats are therefore metrics of their own.
    repeats = [
        Metric(f"{REPEATS}{name}", value, contents.ended_ms + step, step)
        for name, values in contents.history.items()
        if len(values) > 1
        for step, value in enumerate(values)
    ]
    for start in range(0, len(repeats), METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=repeats[start : start + METRICS_PER_BATCH])
    if contents.dataset:
        _log_dataset(client, run_id, contents.dataset)
    client.log_artifacts(run_id, str(bundle.artifacts))


def _log_dataset(client: MlflowClient, run_id: str, data: Data) -> None:
    """Log the data set of a run unless the run has it.

    MLflow looks for the data set before it inserts it.  If two runs do so at the same time, the slower one fails and
    is tried again.
    """
    from mlflow.data.meta_dataset import MetaDataset  # noqa: F401 - the import registers the source types
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    if any(each.dataset.digest == data.digest for each in client.get_run(run_id).inputs.dataset_inputs):
        return
    profile = json.dumps({"split": data.split, "num_rows": data.rows})
    dataset = Dataset(data.name, data.digest, "local", json.dumps({"uri": data.source}), profile=profile)
    inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", data.split)])]
    for attempt in range(1, MAX_COLLISIONS + 1):
        try:
            client.log_inputs(run_id, inputs)
        except MlflowException as error:
            if attempt == MAX_COLLISIONS or not re.search("IntegrityError|UniqueViolation", str(error)):
                raise
        else:
            return


def close_run(
    client: MlflowClient, run_id: str, status: str, failure: str | None = None, ended_ms: int | None = None
) -> None:
    """End a run as FINISHED, FAILED or KILLED, now or at `ended_ms`.

    `failure` is the cause, which goes to a tag and to the top of the run's description.

    Raises:
        TrackingError: the server refused, or did not answer within 60 s.
    """

    def close() -> None:
        client.set_terminated(run_id, status, ended_ms)
        if failure is not None:
            text = redact(failure, os.environ).replace("\0", "\\x00")  # Postgres refuses NUL
            client.set_tag(run_id, FAILURE, text[:MAX_TAG_LENGTH] or "unknown")
            note, before = _failure_note(status, text), client.get_run(run_id).data.tags.get(NOTE_TAG, "")
            if not before.startswith(note):  # a sweep closes a run that may have closed itself
                client.set_tag(run_id, NOTE_TAG, f"{note}\n\n{before}"[:MAX_TAG_LENGTH])

    with tracking_errors(client, "close the run"):
        if serves_ui(client):
            call_with_timeout(CLOSE_SECONDS, close, str(client.tracking_uri))
        else:  # in this thread: a signal then interrupts the call and cannot overtake it
            close()


def _failure_note(status: str, failure: str) -> str:
    """The status and the cause as a code block in markdown, in lines that fit the page."""
    lines = [part for line in failure.splitlines() for part in textwrap.wrap(escape_control(line), NOTE_WIDTH) or [""]]
    return "\n".join([f"**{status}**", "", *(f"    {line}" for line in lines)])


def delete_where_allowed(client: MlflowClient, run_id: str) -> None:
    """Delete a run; it stays if this user may not delete it."""
    from mlflow.exceptions import MlflowException

    try:
        client.delete_run(run_id)
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise
