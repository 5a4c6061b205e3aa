"""An experiment as a team finds it: a saved view of its runs, and a description with the best results so far.

MLflow keeps saved views in tags of the experiment (mlflow/server/js: savedViewUtils, ExperimentPageUIState): the value
is a JSON object with a name and, as text, the state of the page; a state need only hold what differs from the default.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from whisperbench.errors import TrackingError
from whisperbench.results.links import VIEW, Links, run_path, runs_path
from whisperbench.results.names import ACCURACY_KEY, CORPUS, GPU, KIND
from whisperbench.text import markdown
from whisperbench.tracking.connection import explained, search_experiments, ui_address
from whisperbench.tracking.write import NOTE_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
WRITTEN_TAG = "whisperbench.description"
"""The digest of the description that was written last: one that somebody has changed is theirs."""

COLUMNS = {
    "params.`model`": 130,
    "params.`kv_cache_dtype`": 75,
    "params.`max_num_seqs`": 75,
    "params.`gpu_name`": 180,
    "metrics.`wer`": 75,
    "metrics.`reqs_per_sec`": 85,
    "metrics.`rtfx`": 75,
}
"""With their widths in pixels."""
ONLY_BENCHMARKS = f"tags.`{KIND}` = 'benchmark'"
BOARDS = {
    "most accurate": ["metrics.wer ASC", "metrics.reqs_per_sec DESC"],
    "fastest": ["metrics.reqs_per_sec DESC", "metrics.wer ASC"],
}


def furnish(client: MlflowClient, experiment_id: str) -> None:
    """Give an experiment its view and its description, as far as they are missing or have changed.

    A server that is away, or does not let this user, leaves it as it is: nothing that was measured depends on it.
    """
    with contextlib.suppress(TrackingError), explained(client, "does not take the description of its experiment"):
        experiment = client.get_experiment(experiment_id)
        _set(client, experiment, VIEW_TAG, saved_view(experiment.creation_time or 0))
        known = experiment.tags.get(NOTE_TAG, "")
        if not known or digest(known) == experiment.tags.get(WRITTEN_TAG):
            text = description(client, experiment_id)
            _set(client, experiment, WRITTEN_TAG, digest(text))
            _set(client, experiment, NOTE_TAG, text)


def homes(client: MlflowClient) -> Iterator[tuple[str, str]]:
    """Name and address of every experiment that holds a run of the benchmark, furnished, the newest first."""
    links = Links(ui_address(client))
    for experiment in search_experiments(client):
        with explained(client, "does not list its runs"):
            found = client.search_runs([experiment.experiment_id], ONLY_BENCHMARKS, max_results=1)
        if found:
            furnish(client, experiment.experiment_id)
            yield experiment.name, links.runs(experiment.experiment_id)


def saved_view(created_ms: int) -> str:
    """The runs of the benchmark by their WER, with what they are compared by; the value of the experiment's tag."""
    state = {
        "searchFilter": ONLY_BENCHMARKS,
        "orderByKey": "metrics.`wer`",
        "orderByAsc": True,
        "selectedColumns": list(COLUMNS),
        "columnOrder": list(COLUMNS),
        "columnWidths": COLUMNS,
    }
    return json.dumps({"name": VIEW, "createdAt": created_ms, "updatedAt": created_ms, "state": json.dumps(state)})


def description(client: MlflowClient, experiment_id: str) -> str:
    """Where the runs are, how to narrow them down, and the best ones on the data with the most reference words."""
    lines = [
        f"**[All benchmark runs, by word error rate]({runs_path(experiment_id)})**",
        "",
        "Filters for the field above the table, for example:",
        "",
        f"- `tags.{GPU} = 'H100 80GB' and params.kv_cache_dtype = 'fp8'`",
        f"- `tags.{CORPUS} = 'test-clean' and metrics.wer < 3 and metrics.reqs_per_sec > 100`",
    ]
    condition = f"attributes.status = 'FINISHED' and {ONLY_BENCHMARKS} and metrics.reference_words > 0"
    if largest := client.search_runs(
        [experiment_id], condition, max_results=1, order_by=["metrics.reference_words DESC"]
    ):
        (run,) = largest
        key = run.data.tags.get(ACCURACY_KEY, "")
        data = run.data.tags.get(CORPUS) or run.data.params.get("split", "")
        words = run.data.metrics["reference_words"]
        rows = []
        for best, order in BOARDS.items():
            same = f"{condition} and tags.`{ACCURACY_KEY}` = '{key}'"
            rows += [
                _row(best, found) for found in client.search_runs([experiment_id], same, max_results=1, order_by=order)
            ]
        head = ["| | run | GPU | WER | reqs/sec |", "|---|---|---|--:|--:|"]
        lines += ["", f"Best so far on {markdown(data)} ({words:,.0f} words):", "", *head, *rows]
    return "\n".join(lines) + "\n"


def digest(text: str) -> str:
    """16 hexadecimal digits of a description."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _row(best: str, run: Any) -> str:
    info, data = run.info, run.data
    link = f"[{markdown(info.run_name or info.run_id)}]({run_path(info.experiment_id, info.run_id)})"
    rate = data.metrics.get("reqs_per_sec")
    shown = "" if rate is None else f"{rate:.2f}"
    gpu = markdown(data.params.get("gpu_name", ""))
    return f"| {best} | {link} | {gpu} | {data.metrics.get('wer', float('nan')):.2f} | {shown} |"


def _set(client: MlflowClient, experiment: Experiment, tag: str, value: str) -> None:
    if experiment.tags.get(tag) != value:
        client.set_experiment_tag(experiment.experiment_id, tag, value)
