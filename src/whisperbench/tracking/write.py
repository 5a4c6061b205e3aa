"""Writing runs to an MLflow tracking server: a run is opened, filled from a result bundle, closed.

Everything that is logged comes from the bundle on disk and is logged under the same timestamps each
time, so that logging twice changes nothing and logging later gives what logging at once would have.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from whisperbench.errors import TrackingError
from whisperbench.results.bundle import Bundle, Origin
from whisperbench.results.links import run_path
from whisperbench.results.names import FAILURE
from whisperbench.results.transcripts import TABLE
from whisperbench.supervise.owner import Process
from whisperbench.text import redact, without_password
from whisperbench.tracking.connection import explained
from whisperbench.tracking.limits import LOGGING_SECONDS, within

if TYPE_CHECKING:
    from mlflow import MlflowClient

BUNDLE_TAG = "whisperbench.bundle"
PROCESS_TAG = "whisperbench.owner"
TABLE_TAG = "mlflow.loggedArtifacts"
NOTE_TAG = "mlflow.note.content"
USER_TAG = "mlflow.user"
METRICS_PER_BATCH = 900  # MLflow takes 1,000 metrics, params and tags a call
LONGEST_TAG = 5_000
COLLISIONS = 5


def open_run(
    client: MlflowClient, *, experiment: str | None, run_id: str | None, name: str, tags: Mapping[str, str]
) -> str:
    """Attach to the run that `mlflow run` has started, or start one; its id.

    Inside a project run the name and the experiment are the user's and stay as they are.
    """
    with explained(client, "refuses to open a run"):
        if run_id is None:
            return create_run(client, experiment, name, local_tags(tags))
        run = client.get_run(run_id)
        for tag, value in {**_without_secrets(run.data.tags), **tags, **_own_tags()}.items():
            if run.data.tags.get(tag) != value:
                client.set_tag(run_id, tag, value)
        if not os.environ.get("MLFLOW_RUN_NAME") and run.info.run_name is None:
            client.update_run(run_id, name=name)
        return run_id


def local_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """What MLflow notes about who runs which source, without passwords and by the server's user name; and `tags`."""
    from mlflow.tracking.context.registry import resolve_tags

    noted: dict[str, str] = resolve_tags(dict(tags))
    return {**noted, **_without_secrets(noted), **_own_tags()}


def origin_of(client: MlflowClient, run_id: str) -> Origin:
    """How a run was opened, for its bundle."""
    with explained(client, "does not give the run back"):
        run = client.get_run(run_id)
        experiment = client.get_experiment(run.info.experiment_id)
    return Origin(experiment.name, run_id, dict(run.data.tags))


def log_environment(client: MlflowClient, run_id: str, text: str) -> None:
    """The first artifact of a run, and the proof that this client may write artifacts, before an hour is spent."""
    with explained(client, "does not take artifacts"):
        client.log_text(run_id, text, "environment.txt")


def log_files(client: MlflowClient, run_id: str, paths: Iterable[Path]) -> None:
    """Log files as artifacts of a run, side by side."""
    with explained(client, "did not take the files"):
        for path in paths:
            client.log_artifact(run_id, str(path))


def log_bundle(client: MlflowClient, run_id: str, bundle: Bundle) -> None:
    """Fill a run from a bundle, in a few batched calls; a second time changes nothing.

    Raises:
        TrackingError: the server went away or refused; the bundle is untouched.
        BundleError: another process is logging it.
    """
    with bundle.locked(), explained(client, "did not take the result"):
        fill_within_limits(client, run_id, bundle)


def close_run(
    client: MlflowClient, run_id: str, status: str, failure: str | None = None, ended_ms: int | None = None
) -> None:
    """End a run as FINISHED, FAILED or KILLED, now or at `ended_ms`; `failure` says why, in a tag."""
    with explained(client, "did not close the run"):
        client.set_terminated(run_id, status, ended_ms)
        if failure is not None:
            text = redact(failure, os.environ).replace("\0", "\\x00")  # Postgres takes no NUL
            client.set_tag(run_id, FAILURE, text[:LONGEST_TAG] or "unknown")


def delete_where_allowed(client: MlflowClient, run_id: str) -> None:
    """Delete a run; where this user may not, it stays."""
    from mlflow.exceptions import MlflowException

    try:
        client.delete_run(run_id)
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise


def run_url(client: MlflowClient, run_id: str) -> str | None:
    """The run's page in the MLflow UI; None for a store without a server (start `mlflow ui`)."""
    address = without_password(client.tracking_uri).replace("***@", "")
    if not address.startswith("http"):
        return None
    return f"{address.rstrip('/')}/{run_path(client.get_run(run_id).info.experiment_id, run_id)}"


def create_run(
    client: MlflowClient, experiment: str | None, name: str, tags: Mapping[str, str], started_ms: int | None = None
) -> str:
    """A new run, in an experiment that is made where there is none of that name; its id."""
    from mlflow.exceptions import MlflowException

    experiment = experiment or "Default"
    found = client.get_experiment_by_name(experiment)
    if found is None:
        try:
            experiment_id = client.create_experiment(experiment)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment_id = client.get_experiment_by_name(experiment).experiment_id  # somebody was faster
    else:
        experiment_id = found.experiment_id
    with _asked_once():
        run = client.create_run(experiment_id, start_time=started_ms, run_name=name, tags=dict(tags))
    return str(run.info.run_id)


def fill_within_limits(client: MlflowClient, run_id: str, bundle: Bundle) -> None:
    """Log everything that a bundle holds and look whether it has arrived; a second time changes nothing.

    Raises:
        TrackingError: not all of it has arrived, or it took ten minutes.
    """
    within(LOGGING_SECONDS, lambda: fill(client, run_id, bundle), str(client.tracking_uri))
    if missing := not_arrived(client, run_id, bundle):
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
    """Log everything that a bundle holds, whoever has locked it."""
    from mlflow.data.meta_dataset import MetaDataset  # noqa: F401 - the import registers the source types
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    contents = bundle.contents
    run = client.get_run(run_id)
    params = [Param(k, v) for k, v in contents.params.items() if k not in run.data.params]
    tags = {**contents.tags, BUNDLE_TAG: bundle.id, NOTE_TAG: contents.description}
    tags[TABLE_TAG] = json.dumps([{"path": TABLE, "type": "table"}])
    metrics = [
        Metric(name, value, contents.ended_ms + step, step)
        for name, values in contents.history.items()
        for step, value in enumerate(values)
    ]
    # The last value is what MLflow shows as the run's metric: the median repeat's, one step after the history.
    repeats = max((len(values) for values in contents.history.values()), default=1)
    last = repeats if repeats > 1 else 0
    metrics += [
        Metric(name, value, contents.ended_ms + last, last)
        for name, value in contents.metrics.items()
        if last or name not in contents.history
    ]
    client.log_batch(run_id, params=params, tags=[RunTag(k, v) for k, v in tags.items()])
    for start in range(0, len(metrics), METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_BATCH])
    data = contents.dataset
    source = json.dumps({"uri": data.source})
    dataset = Dataset(data.name, data.digest, "local", source, profile=json.dumps({"split": data.split}))
    if not any(i.dataset.digest == data.digest for i in run.inputs.dataset_inputs):
        inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", data.split)])]
        _despite_others(lambda: client.log_inputs(run_id, inputs))
    client.log_artifacts(run_id, str(bundle.artifacts))


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
def _asked_once() -> Iterator[None]:
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

    process, name = Process.this(), read_mlflow_creds().username
    return {**({PROCESS_TAG: str(process)} if process else {}), **({USER_TAG: name} if name else {})}


def _without_secrets(tags: Mapping[str, str]) -> dict[str, str]:
    """Those tags that hold a secret (a git remote with a token in it, say), redacted."""
    return {tag: clean for tag, value in tags.items() if (clean := redact(value, os.environ)) != value}
