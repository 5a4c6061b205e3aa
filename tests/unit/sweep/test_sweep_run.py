"""The runs of a sweep on the tracking server."""

from __future__ import annotations

from typing import Any

from tests.support.stores import run_of
from whisperbench.sweep.sweep_run import best_of
from whisperbench.tracking.runs import log_now


def test_a_sweeps_run_has_the_best_of_its_runs(client: Any) -> None:
    """The lowest WER and the highest rates, each by itself; what no run has measured is absent."""
    run_id = client.create_run("0").info.run_id
    records = [run_of(wer=2.5, rate=40.0), run_of(wer=2.0, rate=30.0), run_of(wer=None, rate=None)]
    log_now(client, run_id, metrics=best_of(records))
    assert client.get_run(run_id).data.metrics == {"best/wer": 2.0, "best/reqs_per_sec": 40.0, "best/rtfx": 296.0}
    assert best_of(records[2:]) == {}
