"""Page of an experiment in MLflow: a saved view of its runs, and a description with the best results.

MLflow stores saved views in tags of the experiment (mlflow/server/js: savedViewUtils, ExperimentPageUIState).  The
value is a JSON object with a name and, as JSON text, the fields of the page's state that differ from the default.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from whisperbench.config.benchmark import OPTIONS
from whisperbench.errors import TrackingError
from whisperbench.results.links import VIEW, run_path, runs_path
from whisperbench.results.names import ACCURACY_KEY, CORPUS, KIND
from whisperbench.text import markdown
from whisperbench.tracking.client import Client, search_experiments, ui_address
from whisperbench.tracking.runs import NOTE_TAG

VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
WRITTEN_TAG = "whisperbench.description"
"""Digest of the last description that was written; if the description has another digest, a user has edited it."""

COLUMNS = {
    **{f"metrics.`{name}`": 90 for name in ("wer", "reqs_per_sec", "rtfx")},
    "params.`gpu_name`": 190,
    **{f"params.`{name}`": 115 for name, each in OPTIONS.items() if each.column and each.param == "always"},
}
"""Columns of the view in order, with their widths in pixels."""
BENCHMARKS = f"tags.`{KIND}` = 'benchmark'"
FINISHED = f"{BENCHMARKS} and attributes.status = 'FINISHED'"
REAL_WEIGHTS = f"{FINISHED} and params.load_format = 'auto'"
BEST = {
    "most accurate": ["metrics.wer ASC", "metrics.reqs_per_sec DESC"],
    "fastest": ["metrics.reqs_per_sec DESC", "metrics.wer ASC"],
}


def update_experiment_page(client: Client, experiment_id: str) -> None:
    """Write the view and the description of an experiment if they are missing or outdated.

    Errors of the server are ignored, because no result depends on the page.
    """
    with contextlib.suppress(TrackingError):
        experiment = client.get_experiment(experiment_id)
        before = experiment.tags.get(NOTE_TAG, "")
        tags = {VIEW_TAG: saved_view(experiment.creation_time or 0)}
        if not before or _digest(before) == experiment.tags.get(WRITTEN_TAG):
            text = description(client, experiment_id)
            tags |= {WRITTEN_TAG: _digest(text), NOTE_TAG: text}
        for tag, value in tags.items():
            if experiment.tags.get(tag) != value:
                client.set_experiment_tag(experiment_id, tag, value)


def experiment_links(client: Client) -> Iterator[tuple[str, str]]:
    """Update the pages of all experiments with a benchmark run; yields their names and addresses, the newest first."""
    address = ui_address(client)
    for experiment in search_experiments(client):
        if client.search_runs([experiment.experiment_id], BENCHMARKS, max_results=1):
            update_experiment_page(client, experiment.experiment_id)
            yield experiment.name, f"{address}/{runs_path(experiment.experiment_id)}"


def saved_view(created_ms: int) -> str:
    """The value of VIEW_TAG: finished benchmark runs with real weights by WER, grouped by their data."""
    by_data = [{"mode": "tag", "groupByData": CORPUS}]
    state = {
        "searchFilter": REAL_WEIGHTS,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": by_data},
        "orderByKey": "metrics.`wer`",
        "orderByAsc": True,
        "selectedColumns": list(COLUMNS),
        "columnOrder": list(COLUMNS),
        "columnWidths": COLUMNS,
    }
    return json.dumps({"name": VIEW, "createdAt": created_ms, "updatedAt": created_ms, "state": json.dumps(state)})


def description(client: Client, experiment_id: str) -> str:
    """Markdown with a link to the runs, examples of filters, and the best runs on the largest corpus."""
    lines = [
        f"**[All benchmark runs, by word error rate]({runs_path(experiment_id)})**\n",
        "Filters for the field above the table, for example:\n",
        "- `params.gpu_name LIKE '%H100%' and params.kv_cache_dtype = 'fp8'`",
        f"- `tags.{CORPUS} = 'test-clean' and metrics.wer < 3 and metrics.reqs_per_sec > 100`",
    ]

    def first(condition: str, order: list[str]) -> Any:
        return next(iter(client.search_runs([experiment_id], condition, max_results=1, order_by=order)), None)

    scored = f"{FINISHED} and metrics.reference_words > 0"
    if largest := first(scored, ["metrics.reference_words DESC"]):
        tags = largest.data.tags
        words = f"{largest.data.metrics['reference_words']:,.0f} words"
        lines.append(f"\nBest so far on {markdown(tags.get(CORPUS, ''))} ({words}):\n")
        lines += ["| | run | GPU | WER | reqs/sec |", "|---|---|---|--:|--:|"]
        same = f"{scored} and tags.`{ACCURACY_KEY}` = '{tags.get(ACCURACY_KEY, '')}'"
        lines += [_row(name, best) for name, order in BEST.items() if (best := first(same, order))]
    return "\n".join(lines) + "\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _row(name: str, run: Any) -> str:
    info, data = run.info, run.data
    link = f"[{markdown(info.run_name or info.run_id)}]({run_path(info.experiment_id, info.run_id)})"
    wer, rate = (f"{data.metrics[metric]:.2f}" if metric in data.metrics else "" for metric in ("wer", "reqs_per_sec"))
    return f"| {name} | {link} | {markdown(data.params.get('gpu_name', ''))} | {wer} | {rate} |"
