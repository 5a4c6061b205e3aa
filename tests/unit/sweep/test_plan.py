"""Plan of a sweep: refused configurations, finished runs and estimates."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.support.fakes import NO_GPU
from tests.support.options import sweep_of
from tests.support.stores import run_of
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.errors import ConfigError
from whisperbench.progress import Listener
from whisperbench.results.names import CONFIG_DIGEST, DISTURBED, SPEED_KEY
from whisperbench.results.record import RunIdentity, RunRecord
from whisperbench.sweep.plan import Planner
from whisperbench.sweep.progress import PlannedRun
from whisperbench.tracking.runs import PARENT_TAG

TINY, BASE, SMALL = (BenchmarkConfig(model=name) for name in ("tiny", "base", "small"))
TINY_FP32 = BenchmarkConfig(model="tiny", dtype="float32")
CHILD = {PARENT_TAG: "a sweep"}


def finished(
    config: BenchmarkConfig, seconds: float, tags: dict[str, str] | None = None, repeats: int = 1
) -> RunRecord:
    params = {"model": config.model, "repeats": str(repeats), "engine_version": "0.32.0"}
    known = {CONFIG_DIGEST: config.digest, SPEED_KEY: "here", **(tags or {})}
    run_id = f"{config.model}-{seconds:.0f}"
    return dataclasses.replace(run_of(config), run_id=run_id, seconds=seconds, params=params, tags=known)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that plans runs of these configurations, which can all be measured."""

    def identity(_self: Planner, config: BenchmarkConfig) -> RunIdentity:
        return RunIdentity(config.digest, None, "here", "0.32.0")

    def plan(configs: list[BenchmarkConfig], earlier: list[RunRecord], **options: object) -> list[PlannedRun]:
        monkeypatch.setattr(Planner, "identity", identity)
        runs = [PlannedRun(config, config.model) for config in configs]
        Planner(sweep_of(**options), NO_GPU, earlier, Listener()).plan_all(runs)
        return runs

    return plan


def test_a_finished_run_replaces_one_run(planned: Any) -> None:
    """Of the same configuration, from a sweep, undisturbed, and with as many repeats; with resume=false none does."""
    earlier = [finished(TINY, 10, CHILD), finished(BASE, 9)]
    states = [(run.state, run.run_id) for run in planned([TINY, TINY, BASE], earlier)]
    assert states == [("skipped", "tiny-10"), ("waiting", None), ("waiting", None)]
    assert [run.state for run in planned([TINY], earlier, resume="false")] == ["waiting"]
    others = [finished(TINY, 10, {**CHILD, DISTURBED: "1 process"}), finished(TINY, 10, CHILD, repeats=3)]
    assert [run.state for run in planned([TINY], others)] == ["waiting"]


def test_estimates_come_from_all_finished_runs(planned: Any) -> None:
    """Single runs too: the median of the configuration, else of the model; other models differ too much."""
    earlier = [
        finished(TINY, 10),
        finished(TINY, 30),
        finished(TINY, 90),
        finished(TINY, 900, repeats=9),
        finished(BASE, 70),
    ]
    runs = planned([TINY, TINY_FP32, BASE, SMALL], earlier)
    assert [run.estimate_seconds for run in runs] == [30, 30, 70, None]


def test_a_sweep_without_a_possible_run_is_refused() -> None:
    """The message has each cause once; with one possible run, the others are refused in their rows."""
    runs = [PlannedRun(BenchmarkConfig(gpu_type=name), name) for name in ("B200", "B200", "A10")]
    with pytest.raises(ConfigError) as refused:
        Planner(sweep_of(), NO_GPU, [], Listener()).plan_all(runs)
    assert str(refused.value).count("gpu_type=B200, found no GPU") == 1
    assert str(refused.value).count("gpu_type=A10, found no GPU") == 1
