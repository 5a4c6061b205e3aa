"""Selection of the runs to compare, and their cost per audio hour."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Mapping, Sequence

from whisperbench.config.compare import CompareConfig
from whisperbench.results.record import RunRecord

COST = "usd_per_audio_hour"


def selects(options: CompareConfig, record: RunRecord) -> bool:
    """Whether the GPU and the model of a run match the glob patterns of `options`, ignoring case."""
    wanted = options.gpu or "*"
    gpu = wanted if set(wanted) & set("*?[") else f"*{wanted}*"
    model_id = record.params.get("model_id", "")
    models = (record.params.get("model", ""), model_id, model_id.rpartition("/")[2])
    return _matches(record.gpu, gpu) and any(_matches(name, options.model or "*") for name in models)


def priced(run: RunRecord, price_of: Mapping[str, float]) -> RunRecord:
    """The run with its cost and the cost of each repeat, GPUs × USD per GPU hour / RTFx; unchanged without a price.

    Args:
        price_of: USD per hour of one GPU by its full name or by whole words of it (`H100`); the full name has priority.
    """
    fitting = [price for name, price in price_of.items() if named(name, run.gpu)]
    price = price_of.get(run.gpu, fitting[0] if fitting else None)
    rates = [rate for rate in run.values("rtfx") if rate > 0]
    rtfx = run.metric("rtfx")
    if price is None or not rtfx:
        return run
    hourly = price * run.count("gpu_count")
    return dataclasses.replace(
        run,
        metrics={**run.metrics, COST: hourly / rtfx},
        history={**run.history, COST: tuple(hourly / rate for rate in rates)} if run.history else {},
    )


def unused_prices(price_of: Mapping[str, float], runs: Sequence[RunRecord]) -> list[str]:
    """The GPU names in `price_of` that match no run."""
    return [name for name in price_of if not any(name == run.gpu or named(name, run.gpu) for run in runs)]


def named(family: str, gpu: str) -> bool:
    """Whether the name of a GPU contains a family name as whole words, ignoring case."""
    return re.search(rf"\b{re.escape(family)}\b", gpu, re.IGNORECASE) is not None


def _matches(text: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(text.lower(), pattern.lower())
