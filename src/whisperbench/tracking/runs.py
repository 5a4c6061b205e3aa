"""Writing runs to an MLflow tracking server: a run is opened, filled from a result bundle, closed.

Everything that is logged comes from the bundle on disk and is logged under the same timestamps each
time, so that logging twice changes nothing and logging later gives what logging at once would have.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisperbench.errors import TrackingError
from whisperbench.processes.owner import ProcessId
from whisperbench.results.bundle import Bundle, Origin
from whisperbench.results.names import FAILURE, REPEATS
from whisperbench.results.record import spread_percent
from whisperbench.results.run_data import RunData
from whisperbench.results.run_info import Dataset as Data
from whisperbench.results.transcripts import TABLE
from whisperbench.text import escape_control, redact, without_password
from whisperbench.tracking.client import CLOSE_SECONDS, FILL_SECONDS, call_with_timeout, serves_ui, tracking_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

BUNDLE_TAG = "whisperbench.bundle"
PROCESS_TAG = "whisperbench.owner"
TABLE_TAG = "mlflow.loggedArtifacts"
NOTE_TAG = "mlflow.note.content"
USER_TAG = "mlflow.user"
METRICS_PER_BATCH = 900  # MLflow takes 1,000 metrics, params and tags a call
MAX_TAG_LENGTH = 5_000
LINE = 100
"""Characters of a description's line: MLflow does not wrap code."""
COLLISIONS = 5


def open_run(
    client: MlflowClient, *, experiment: str | None, run_id: str | None, name: str, tags: Mapping[str, str]
) -> str:
    """Attach to the run that `mlflow run` has started, or start one; its id.

    Inside a project run the name and the experiment are the user's and stay as they are.
    """
    with tracking_errors(client, "refuses to open a run"):
        if run_id is None:
            return create_run(client, experiment, name, local_tags(tags))
        run = client.get_run(run_id)
        for tag, value in {**_without_secrets(run.data.tags), **tags, **_own_tags()}.items():
            if run.data.tags.get(tag) != value:
                client.set_tag(run_id, tag, value)
        if named_by_mlflow(run.info.run_name):
            client.update_run(run_id, name=name)
        return run_id


def named_by_mlflow(name: str | None) -> bool:
    """Whether nobody has chosen a run's name: there is none, or it is one of MLflow's, like `dapper-stoat-918`."""
    from mlflow.utils import name_utils

    predicate, _, rest = (name or "").partition("-")
    noun, _, number = rest.partition("-")
    of_mlflow = predicate in name_utils._GENERATOR_PREDICATES and noun in name_utils._GENERATOR_NOUNS
    return not name or (of_mlflow and number.isdecimal())


def local_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """What MLflow notes about who runs which source, without passwords and by the server's user name; and `tags`."""
    from mlflow.tracking.context.registry import resolve_tags

    noted: dict[str, str] = resolve_tags(dict(tags))
    return {**noted, **_without_secrets(noted), **_own_tags()}


def origin_of(client: MlflowClient, run_id: str) -> Origin:
    """How a run was opened, for its bundle."""
    with tracking_errors(client, "does not give the run back"):
        run = client.get_run(run_id)
        experiment = client.get_experiment(run.info.experiment_id)
    return Origin(experiment.name, run_id, dict(run.data.tags))


def log_environment(client: MlflowClient, run_id: str, text: str) -> None:
    """The first artifact of a run, and the proof that this client may write artifacts, before an hour is spent."""
    with tracking_errors(client, "does not take artifacts"):
        client.log_text(run_id, text, "environment.txt")


def log_start(client: MlflowClient, run_id: str, start: RunData) -> None:
    """Show in a run what is known before it is measured; `fill` says the same and more."""
    from mlflow.entities import Param, RunTag

    with tracking_errors(client, "did not take the params"):
        run = client.get_run(run_id)
        params = [Param(k, v) for k, v in start.params.items() if k not in run.data.params]
        tags = {**start.tags, NOTE_TAG: start.description}
        client.log_batch(run_id, params=params, tags=[RunTag(k, v) for k, v in tags.items()])
        if start.dataset:
            log_dataset(client, run, start.dataset)


def log_live(client: MlflowClient, run_id: str, metrics: Mapping[str, float], step: int) -> None:
    """Log metrics of the current moment during a measurement.

    Raises:
        TrackingError: whatever goes wrong: MLflow's libraries raise errors of their own in a thread at exit.
    """
    from mlflow.entities import Metric

    now = time.time_ns() // 1_000_000
    with tracking_errors(client, "did not take the progress metrics"):
        client.log_batch(run_id, metrics=[Metric(name, value, now, step) for name, value in metrics.items()])


def start_system_metrics(client: MlflowClient, run_id: str, until: contextlib.ExitStack) -> None:
    """MLflow's own metrics of the machine, where MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING asks for them; they end with
    `until`."""
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

    if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(run_id, tracking_uri=client.tracking_uri)
        monitor.start()
        until.callback(monitor.finish)


def log_files(client: MlflowClient, run_id: str, paths: Iterable[Path]) -> None:
    """Log files as artifacts of a run, side by side."""
    with tracking_errors(client, "did not take the files"):
        for path in paths:
            client.log_artifact(run_id, str(path))


def log_bundle(client: MlflowClient, run_id: str, bundle: Bundle) -> None:
    """Fill a run from a bundle, in a few batched calls; a second time changes nothing.

    Raises:
        TrackingError: the server went away or refused; the bundle is untouched.
        BundleError: another process is logging it.
    """
    with bundle.locked(), tracking_errors(client, "did not take the result"):
        fill_within_limits(client, run_id, bundle)


def close_run(
    client: MlflowClient, run_id: str, status: str, failure: str | None = None, ended_ms: int | None = None
) -> None:
    """End a run as FINISHED, FAILED or KILLED, now or at `ended_ms`; `failure` says why, in a tag and on top of its
    description.

    Raises:
        TrackingError: the server refused, or did not answer within 60 s.
    """

    def close() -> None:
        client.set_terminated(run_id, status, ended_ms)
        if failure is not None:
            text = redact(failure, os.environ).replace("\0", "\\x00")  # Postgres takes no NUL
            client.set_tag(run_id, FAILURE, text[:MAX_TAG_LENGTH] or "unknown")
            known, note = client.get_run(run_id).data.tags.get(NOTE_TAG, ""), failed_note(status, text)
            if not known.startswith(note):  # a sweep says it again of a run that has said it itself
                client.set_tag(run_id, NOTE_TAG, f"{note}\n\n{known}"[:MAX_TAG_LENGTH])

    with tracking_errors(client, "did not close the run"):
        if serves_ui(client):
            call_with_timeout(CLOSE_SECONDS, close, str(client.tracking_uri))
        else:  # a database, in this thread: a signal then interrupts the call, and cannot be overtaken by it
            close()


def failed_note(status: str, failure: str) -> str:
    """The cause and the way out, which a message of ours names, as markdown that shows it and obeys nothing; in lines
    that a page shows whole."""
    lines = [part for line in failure.splitlines() for part in textwrap.wrap(escape_control(line), LINE) or [""]]
    shown = "\n".join(f"    {line}" for line in lines)
    return f"**{status}**\n\n{shown}"


def delete_where_allowed(client: MlflowClient, run_id: str) -> None:
    """Delete a run; where this user may not, it stays."""
    from mlflow.exceptions import MlflowException

    try:
        client.delete_run(run_id)
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise


def experiment_id_of(client: MlflowClient, name: str) -> str:
    """The id of the experiment of that name, which is made where there is none."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # somebody was faster
    return str(found.experiment_id)


def create_run(
    client: MlflowClient, experiment: str | None, name: str, tags: Mapping[str, str], started_ms: int | None = None
) -> str:
    """A new run, in an experiment that is made where there is none of that name; its id."""
    experiment_id = experiment_id_of(client, experiment or "Default")
    with _without_retries():
        run = client.create_run(experiment_id, start_time=started_ms, run_name=name, tags=dict(tags))
    return str(run.info.run_id)


def fill_within_limits(client: MlflowClient, run_id: str, bundle: Bundle) -> None:
    """Log everything that a bundle holds and look whether it has arrived; a second time changes nothing.

    Raises:
        TrackingError: not all of it has arrived, or it took ten minutes.
    """

    def fill_and_look() -> list[str]:
        fill(client, run_id, bundle)
        return not_arrived(client, run_id, bundle)

    if missing := call_with_timeout(FILL_SECONDS, fill_and_look, str(client.tracking_uri)):
        raise TrackingError(
            f"The tracking server {without_password(str(client.tracking_uri))} does not hold what it has taken: of "
            f"{bundle.directory} it lacks {len(missing)} file(s), the first is {missing[0]}. Something between here "
            "and the server answers for it: ask whoever runs it."
        )


def not_arrived(client: MlflowClient, run_id: str, bundle: Bundle) -> list[str]:
    """The bundle's files that the run does not hold in their whole size."""
    held: dict[str, int | None] = {}
    folders = [""]
    while folders:
        for each in client.list_artifacts(run_id, folders.pop() or None):
            if each.is_dir:
                folders.append(each.path)
            else:
                held[each.path] = each.file_size
    files = {str(path.relative_to(bundle.artifacts)): path for path in bundle.artifacts.rglob("*") if path.is_file()}
    # Not every place for artifacts tells sizes.
    return sorted(name for name, path in files.items() if held.get(name, -1) not in (None, path.stat().st_size))


def fill(client: MlflowClient, run_id: str, bundle: Bundle) -> None:
    """Log everything that a bundle holds, whoever has locked it; a second time changes nothing."""
    from mlflow.entities import Metric, Param, RunTag

    contents = bundle.contents
    run = client.get_run(run_id)
    params = [Param(k, v) for k, v in contents.params.items() if k not in run.data.params]
    tags = {**contents.tags, BUNDLE_TAG: bundle.id, NOTE_TAG: contents.description}
    tags[TABLE_TAG] = json.dumps([{"path": TABLE, "type": "table"}])
    # One step each: a metric with a history is drawn as a line, and what is compared is a bar.
    metrics = [Metric(name, value, contents.ended_ms, 0) for name, value in contents.metrics.items()]
    metrics += [
        Metric(f"{REPEATS}{name}", value, contents.ended_ms + step, step)
        for name, values in contents.history.items()
        if len(values) > 1
        for step, value in enumerate(values)
    ]
    if len(rates := contents.history.get("reqs_per_sec", ())) > 1:
        metrics.append(Metric(f"{REPEATS}spread_percent", spread_percent(rates), contents.ended_ms, 0))
    client.log_batch(run_id, params=params, tags=[RunTag(k, v) for k, v in tags.items()])
    for start in range(0, len(metrics), METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_BATCH])
    if contents.dataset:
        log_dataset(client, run, contents.dataset)
    client.log_artifacts(run_id, str(bundle.artifacts))


def log_dataset(client: MlflowClient, run: Any, data: Data) -> None:
    """The data set of a run, once."""
    from mlflow.data.meta_dataset import MetaDataset  # noqa: F401 - the import registers the source types
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = {"split": data.split, "num_rows": data.rows}
    dataset = Dataset(data.name, data.digest, "local", json.dumps({"uri": data.source}), profile=json.dumps(profile))
    if not any(i.dataset.digest == data.digest for i in run.inputs.dataset_inputs):
        inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", data.split)])]
        _despite_others(lambda: client.log_inputs(run.info.run_id, inputs))


def _despite_others(call: Callable[[], None]) -> None:
    """MLflow looks whether a data set exists and then inserts it: of two that do so at once it refuses the slower."""
    from mlflow.exceptions import MlflowException

    for attempt in range(COLLISIONS):
        try:
            return call()
        except MlflowException as error:
            if attempt == COLLISIONS - 1 or not re.search("IntegrityError|UniqueViolation", str(error)):
                raise
    return None


@contextlib.contextmanager
def _without_retries() -> Iterator[None]:
    """No retries: a server that answered too late has created the run, and a second request would create another."""
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _own_tags() -> dict[str, str]:
    """The process that works on the run; and the user's name on the server, as on rented machines everybody is root."""
    from mlflow.utils.credentials import read_mlflow_creds

    process, name = ProcessId.this(), read_mlflow_creds().username
    return {**({PROCESS_TAG: str(process)} if process else {}), **({USER_TAG: name} if name else {})}


def _without_secrets(tags: Mapping[str, str]) -> dict[str, str]:
    """Those tags that hold a secret (a git remote with a token in it, say), redacted."""
    return {tag: clean for tag, value in tags.items() if (clean := redact(value, os.environ)) != value}
