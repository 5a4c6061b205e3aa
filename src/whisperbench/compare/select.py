"""The runs to compare: selection, cost per audio hour, and scores with the installed normaliser."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence

from whisperbench.config.compare import CompareConfig
from whisperbench.measure.score import score
from whisperbench.results.keys import with_normalizer
from whisperbench.results.names import ACCURACY_KEY
from whisperbench.results.record import RunRecord
from whisperbench.results.run_data import accuracy_metrics
from whisperbench.results.transcripts import StoredTranscripts

COST = "usd_per_audio_hour"


def selects(options: CompareConfig, record: RunRecord) -> bool:
    """Whether the GPU and the model of a run match the glob patterns of `options`, ignoring case."""
    gpu, model_id = options.gpu or "*", record.params.get("model_id", "")
    pattern = gpu if set(gpu) & set("*?[") else f"*{gpu}*"
    models = (record.params.get("model", ""), model_id, model_id.rpartition("/")[2])
    return _matches(record.gpu, pattern) and any(_matches(name, options.model or "*") for name in models)


def priced(run: RunRecord, price_of: Mapping[str, float]) -> RunRecord:
    """The run with its cost and the cost of each repeat, GPUs × USD per GPU hour / RTFx; unchanged without a price.

    Args:
        price_of: USD per hour of one GPU by its full name or by whole words of it (`H100`); the full name has priority.
    """
    fitting = [price for name, price in price_of.items() if named(name, run.gpu)]
    price = price_of.get(run.gpu, fitting[0] if fitting else None)
    rtfx = run.metric("rtfx")
    if price is None or not rtfx:
        return run
    hourly = price * run.count("gpu_count")
    costs = tuple(hourly / rate for rate in run.values("rtfx") if rate > 0)
    history = {**run.history, COST: costs} if run.history else {}
    return dataclasses.replace(run, metrics={**run.metrics, COST: hourly / rtfx}, history=history)


def price_warnings(price_of: Mapping[str, float], runs: Sequence[RunRecord]) -> Iterator[str]:
    """A sentence for each price that gives no run a cost, and the reason."""
    for name in price_of:
        of_gpu = [run for run in runs if named(name, run.gpu)]
        if not of_gpu:
            gpus = ", ".join(sorted({run.gpu for run in runs}))
            yield f"prices: no run was measured on a GPU {name!r}. The runs were measured on {gpus}."
        elif all(run.metric("rtfx") is None for run in of_gpu):
            causes = " and ".join(sorted({run.disturbed for run in of_gpu if run.disturbed}))
            reason = f" ({causes})" if causes else ""
            yield f"prices: no run on a GPU {name!r} has a ranked speed{reason}, so its cost is not known."


def rescore(run: RunRecord, stored: StoredTranscripts | None) -> tuple[RunRecord, StoredTranscripts] | None:
    """The run with metrics and accuracy key of the installed normaliser, and its transcripts with their new counts.

    None without a WER or transcripts, or if an utterance has no reference.

    Raises:
        CorpusError: a text cannot be normalised; the message names the utterance.
    """
    if not stored or run.wer is None or any(utterance.reference is None for utterance in stored):
        return None
    found = score(stored, run.params.get("language", "en"))
    kept = {n: v for n, v in run.metrics.items() if not re.fullmatch("[wc]er(_ci_low|_ci_high)?", n)}
    tags = {**run.tags, ACCURACY_KEY: with_normalizer(run.accuracy_key or "", found.normalizer.name)}
    return dataclasses.replace(run, metrics={**kept, **accuracy_metrics(found)}, tags=tags), found.results


def named(family: str, gpu: str) -> bool:
    """Whether the name of a GPU is a family name or contains it as whole words, ignoring case."""
    return family == gpu or re.search(rf"\b{re.escape(family)}\b", gpu, re.IGNORECASE) is not None


def _matches(text: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(text.lower(), pattern.lower())
