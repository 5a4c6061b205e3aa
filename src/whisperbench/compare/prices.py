"""What an hour of audio costs by today's prices of GPUs, whatever a run was told when it was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from whisperbench.compare.published import named
from whisperbench.results.run_record import RunRecord

COST = "usd_per_audio_hour"


def priced(run: RunRecord, price_of: Mapping[str, float]) -> RunRecord:
    """The run with its cost and that of each repeat: GPUs x USD per GPU hour / RTFx; as it is where no price fits.

    Args:
        price_of: USD per hour of one GPU by its whole name, or by whole words of it (`H100`); the whole name wins.
    """
    fitting = [price for name, price in price_of.items() if named(name, run.gpu)]
    price = price_of.get(run.gpu, fitting[0] if fitting else None)
    rates = [rate for rate in run.values("rtfx") if rate > 0]
    rtfx = run.metric("rtfx")
    if price is None or not rtfx:
        return run
    hourly = price * int(run.params.get("gpu_count", "1"))
    return dataclasses.replace(
        run,
        metrics={**run.metrics, COST: hourly / rtfx},
        history={**run.history, COST: tuple(hourly / rate for rate in rates)} if run.history else {},
    )


def prices_that_fit_nothing(price_of: Mapping[str, float], runs: Sequence[RunRecord]) -> list[str]:
    """Names of GPUs that no run was measured on."""
    return [name for name in price_of if not any(name == run.gpu or named(name, run.gpu) for run in runs)]
