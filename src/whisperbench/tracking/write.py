"""Writing runs to an MLflow tracking server: a run is opened, filled from a result bundle, closed.

Everything that is logged comes from the bundle on disk and is logged under the same timestamps each
time, so that logging twice changes nothing and logging later gives what logging at once would have.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from whisperbench.errors import TrackingError
from whisperbench.results.bundle import Bundle, Origin
from whisperbench.results.contents import FAILURE
from whisperbench.supervise.owner import Process
from whisperbench.text import redact, without_password

__all__ = ["without_password"]

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

PREFLIGHT_SECONDS = 9
REQUEST_SECONDS = 20
OLDEST_SERVER = (2, 4)  # the first with datasets as inputs of a run
BUNDLE_TAG = "whisperbench.bundle"
PROCESS_TAG = "whisperbench.owner"
TABLE_TAG = "mlflow.loggedArtifacts"
NOTE_TAG = "mlflow.note.content"
USER_TAG = "mlflow.user"
METRICS_PER_BATCH = 900  # MLflow takes 1,000 metrics, params and tags a call
LONGEST_TAG = 5_000
COLLISIONS = 5


def connect(tracking_uri: str | None = None) -> MlflowClient:
    """A client of the tracking server that is known to answer, and to be new enough.

    Raises:
        TrackingError: the server did not answer within 10 s, refused, or is too old.
    """
    # With MLflow's own settings a dead server blocks for 245 s.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_SECONDS))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout carries the result
    import mlflow

    address = tracking_uri or str(mlflow.get_tracking_uri())

    def ask() -> tuple[MlflowClient, str | None]:
        with explained(address, "does not answer"):
            client = mlflow.MlflowClient(tracking_uri=address)  # a database is looked at here already
            version = server_version(client)
            client.search_experiments(max_results=1)
            return client, version

    client, version = _within(PREFLIGHT_SECONDS, ask, address)
    if version is not None and _numbers(version) < OLDEST_SERVER:
        raise TrackingError(
            f"The tracking server {without_password(address)} is MLflow {version}: it cannot hold the "
            f"data set of a run. Version {'.'.join(map(str, OLDEST_SERVER))} or newer is needed."
        )
    return client


def server_version(client: MlflowClient) -> str | None:
    """The MLflow version of a server; None for a store without one, or where something else answers."""
    if not str(client.tracking_uri).startswith("http"):
        return None
    from mlflow.utils.rest_utils import http_request

    answer = http_request(client._tracking_client.store.get_host_creds(), "/version", "GET", max_retries=0, timeout=5)
    text = str(answer.text).strip()
    return text if answer.ok and text[:1].isdigit() and len(text) < 30 else None


def open_run(
    client: MlflowClient, *, experiment: str | None, run_id: str | None, name: str, tags: Mapping[str, str]
) -> str:
    """Attach to the run that `mlflow run` has started, or start one; its id.

    Inside a project run the name and the experiment are the user's and stay as they are.
    """
    with explained(client, "refuses to open a run"):
        if run_id is None:
            return _create_run(client, experiment, name, local_tags(tags))
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


def log_bundle(client: MlflowClient, run_id: str, bundle: Bundle) -> None:
    """Fill a run from a bundle, in a few batched calls; a second time changes nothing.

    Raises:
        TrackingError: the server went away or refused; the bundle is untouched.
        BundleError: another process is logging it.
    """
    with bundle.locked(), explained(client, "did not take the result"):
        _fill(client, run_id, bundle)


def upload(client: MlflowClient, bundle: Bundle) -> tuple[str, bool]:
    """Log a bundle to the run it was measured for, or to a new one; (run id, whether there was anything to do).

    Raises:
        TrackingError: the server went away or refused; the same upload may simply be tried again.
        BundleError: another process is logging it.
    """
    with bundle.locked(), explained(client, "did not take the result"):
        run = _run_of(client, bundle)
        if run is not None and run.info.status == "FINISHED" and run.data.tags.get(BUNDLE_TAG) == bundle.id:
            return str(run.info.run_id), False
        if run is not None:
            run_id, tags = str(run.info.run_id), run.data.tags
        else:
            tags = {**bundle.origin.tags, BUNDLE_TAG: bundle.id}
            name, started = bundle.contents.name, bundle.contents.started_ms
            run_id = _create_run(client, bundle.origin.experiment, name, tags, started)
        _fill(client, run_id, bundle)
        if FAILURE in tags:
            client.delete_tag(run_id, FAILURE)
        client.set_terminated(run_id, "FINISHED", bundle.contents.ended_ms)
    return run_id, True


def close_run(client: MlflowClient, run_id: str, status: str, failure: str | None = None) -> None:
    """End a run as FINISHED, FAILED or KILLED; `failure` says why, in a tag."""
    with explained(client, "did not close the run"):
        client.set_terminated(run_id, status)
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


def run_path(experiment_id: str, run_id: str) -> str:
    """The part of a run's address after the server's; without the parameter it opens in the GenAI view."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


@contextlib.contextmanager
def explained(client: MlflowClient | str, what: str) -> Iterator[None]:
    """Turn MLflow's and the network's errors into one sentence with the server's address and no password."""
    import requests
    import urllib3
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        address = without_password(client if isinstance(client, str) else str(client.tracking_uri))
        raise TrackingError(
            f"The tracking server {address} {what} ({redact(reason, os.environ)}). "
            "Check MLFLOW_TRACKING_URI and the server."
        ) from error


_explained = explained


def _create_run(
    client: MlflowClient, experiment: str | None, name: str, tags: Mapping[str, str], started_ms: int | None = None
) -> str:
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


def _fill(client: MlflowClient, run_id: str, bundle: Bundle) -> None:
    from mlflow.data.meta_dataset import MetaDataset  # noqa: F401 - the import registers the source types
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    contents = bundle.contents
    run = client.get_run(run_id)
    params = [Param(k, v) for k, v in contents.params.items() if k not in run.data.params]
    tags = {**contents.tags, BUNDLE_TAG: bundle.id, NOTE_TAG: contents.description}
    tags[TABLE_TAG] = json.dumps([{"path": "transcripts.json", "type": "table"}])
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


def _run_of(client: MlflowClient, bundle: Bundle) -> Any:
    """The run that a bundle was measured for, or was uploaded to before; None where there is none on this server."""
    from mlflow.exceptions import MlflowException

    if bundle.origin.run_id is not None:
        try:
            run = client.get_run(bundle.origin.run_id)
            if run.info.lifecycle_stage == "active" and run.data.tags.get(BUNDLE_TAG, bundle.id) == bundle.id:
                return run
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    experiments = [e.experiment_id for e in client.search_experiments(max_results=1_000)]
    found = client.search_runs(experiments, f"tags.`{BUNDLE_TAG}` = '{bundle.id}'", max_results=1)
    return found[0] if found else None


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


def _within(seconds: float, ask: Callable[[], T], address: str) -> T:
    """What `ask` returns; a name server or a database that hangs does not hold up the program."""
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:  # raised again in the thread that asked
            errors.append(error)

    thread = threading.Thread(target=run, name="preflight", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TrackingError(
            f"The tracking server {without_password(address)} does not answer within {seconds:.0f} s. "
            "Check MLFLOW_TRACKING_URI and the server."
        )
    return answers[0]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
