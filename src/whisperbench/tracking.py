"""Writing runs to an MLflow tracking server: a run is opened, filled from a result bundle, closed.

Everything that is logged comes from the bundle on disk and is logged under the same timestamps each
time, so that logging twice changes nothing and logging later gives what logging at once would have.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from whisperbench.bundle import Bundle
from whisperbench.errors import TrackingError
from whisperbench.record import FAILURE

if TYPE_CHECKING:
    from mlflow import MlflowClient

PREFLIGHT_SECONDS = 8
BUNDLE_TAG = "whisperbench.bundle"
TABLE_TAG = "mlflow.loggedArtifacts"
NOTE_TAG = "mlflow.note.content"
METRICS_PER_BATCH = 900  # MLflow takes 1,000 metrics, params and tags a call


def connect(tracking_uri: str | None = None) -> MlflowClient:
    """A client of the tracking server that is known to answer.

    Raises:
        TrackingError: the server did not answer within 10 s, or refused.
    """
    # With MLflow's own settings a dead server blocks for 245 s.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(PREFLIGHT_SECONDS))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=tracking_uri)
    with _explained(client, "does not answer"):
        client.search_experiments(max_results=1)
    return client


def open_run(
    client: MlflowClient, *, experiment: str | None, run_id: str | None, name: str, tags: Mapping[str, str]
) -> str:
    """Attach to the run that `mlflow run` has started, or start one; its id.

    Inside a project run the name and the experiment are the user's and stay as they are.
    """
    from mlflow.tracking.context.registry import resolve_tags

    with _explained(client, "refuses to open a run"):
        if run_id is not None:
            for tag, value in tags.items():
                client.set_tag(run_id, tag, value)
            if not os.environ.get("MLFLOW_RUN_NAME") and client.get_run(run_id).info.run_name is None:
                client.update_run(run_id, name=name)
            return run_id
        found = client.get_experiment_by_name(experiment or "Default")
        experiment_id = found.experiment_id if found else client.create_experiment(experiment or "Default")
        run = client.create_run(experiment_id, run_name=name, tags=resolve_tags(dict(tags)))
        return str(run.info.run_id)


def log_bundle(client: MlflowClient, run_id: str, bundle: Bundle) -> None:
    """Fill a run from a bundle, in a few batched calls.

    Raises:
        TrackingError: the server went away or refused; the bundle is untouched.
    """
    from mlflow.data.meta_dataset import MetaDataset  # noqa: F401 - the import registers the source types
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    contents = bundle.contents
    with _explained(client, f"did not take the result. It is safe in {bundle.directory}"):
        run = client.get_run(run_id)
        params = [Param(k, v) for k, v in contents.params.items() if k not in run.data.params]
        tags = {**contents.tags, BUNDLE_TAG: bundle.directory.name, NOTE_TAG: contents.description}
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
            client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", data.split)])])
        client.log_artifacts(run_id, str(bundle.artifacts))


def close_run(client: MlflowClient, run_id: str, status: str, failure: str | None = None) -> None:
    """End a run as FINISHED, FAILED or KILLED; `failure` says why, in a tag."""
    with _explained(client, "did not close the run"):
        if failure is not None:
            client.set_tag(run_id, FAILURE, failure[:5000])
        client.set_terminated(run_id, status)


def run_url(client: MlflowClient, run_id: str) -> str | None:
    """The run's page in the MLflow UI; None for a store without a server (start `mlflow ui`)."""
    address = client.tracking_uri
    if not address.startswith("http"):
        return None
    return f"{address.rstrip('/')}/{run_path(client.get_run(run_id).info.experiment_id, run_id)}"


def run_path(experiment_id: str, run_id: str) -> str:
    """The part of a run's address after the server's; without the parameter it opens in the GenAI view."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


@contextlib.contextmanager
def _explained(client: Any, what: str) -> Iterator[None]:
    """Turn MLflow's and the network's errors into one sentence with the server's address and no password."""
    import requests
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, requests.RequestException, OSError) as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        address = without_password(str(client.tracking_uri))
        raise TrackingError(
            f"The tracking server {address} {what} ({without_password(reason)}). "
            "Check MLFLOW_TRACKING_URI and the server."
        ) from error


def without_password(text: str) -> str:
    """`https://user:secret@host` as `https://***@host`, anywhere in a text."""
    import re

    return re.sub(r"(\w+://)[^/@\s]+@", r"\1***@", text)
