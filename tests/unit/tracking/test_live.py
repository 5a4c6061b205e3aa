"""Progress: what a run shows while it is measured, and that the measurement does not depend on it."""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import CONFIG, result
from tests.support.fakes import DELAY_VARIABLE, NO_GPU, FakeEngine
from whisperbench import benchmark
from whisperbench.errors import TrackingError
from whisperbench.progress import Listener
from whisperbench.results.names import PROGRESS
from whisperbench.tracking import live, runs
from whisperbench.tracking.live import LiveProgress

pytestmark = pytest.mark.usefixtures("no_project_run")

SYSTEM_METRICS = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"


def live_metrics(client: Any) -> LiveProgress:
    """Of a new run."""
    return LiveProgress(client, client.create_run("0").info.run_id, NO_GPU)


def history(client: Any, run_id: str, name: str) -> list[float]:
    return [m.value for m in client.get_metric_history(run_id, name)]


def test_a_run_fills_while_it_is_measured(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Params, data set and description come first, then the progress, which the result replaces."""
    monkeypatch.setattr(live, "INTERVAL_SECONDS", 0.05)
    monkeypatch.setenv(DELAY_VARIABLE, "0.1")
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []
    log_now = runs.log_now

    def look(*arguments: Any, **options: Any) -> None:
        log_now(*arguments, **options)
        if PROGRESS in options.get("tags", {}):
            seen.append(client.get_run(arguments[1]))

    monkeypatch.setattr(runs, "log_now", look)
    bundle = benchmark.run(dataclasses.replace(CONFIG, repeats=3), Listener(), FakeEngine)
    (run,) = client.search_runs(["0"])
    early = seen[0]
    assert (early.info.status, early.info.run_name) == ("RUNNING", "demo_CPU_demo")
    assert early.data.params["gpu_name"] == run.data.params["gpu_name"]
    assert early.inputs.dataset_inputs[0].dataset.digest == run.data.tags["dataset.digest"]
    assert "Command: `mlflow run . -P model=demo" in early.data.tags["mlflow.note.content"]
    assert "reqs_per_sec" not in early.data.metrics
    texts = [each.data.tags[PROGRESS] for each in seen]
    finished = [int(text.split()[0]) for text in texts]
    assert finished == sorted(finished)
    assert finished[-1] <= 24
    assert re.fullmatch(r"\d+ utterances finished, [\d.]+ utterances/s", texts[-1])  # without a GPU
    assert PROGRESS not in run.data.tags
    assert history(client, run.info.run_id, "reqs_per_sec") == [bundle.contents.metrics["reqs_per_sec"]]
    assert run.data.metrics.keys() == bundle.contents.metrics.keys()


def test_progress_is_logged_again_after_an_error(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer interrupts only the progress."""
    tries = threading.Semaphore(0)

    def refuse(*_: Any, **__: Any) -> None:
        tries.release()
        raise TrackingError("gone")

    monkeypatch.setattr(live, "INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(runs, "log_now", refuse)
    with live_metrics(client) as metrics:
        metrics.on_start()
        assert tries.acquire(timeout=10)
        assert tries.acquire(timeout=10)


def test_a_server_that_hangs_does_not_delay_the_result(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The measurement ends while the request of the thread is still open."""
    asked, answer = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> None:
        asked.set()
        answer.wait(60)

    monkeypatch.setattr(live, "INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(live, "EXIT_SECONDS", 0.1)
    monkeypatch.setattr(runs, "log_now", hang)
    with live_metrics(client) as metrics:
        metrics.on_start()
        assert asked.wait(10)
        metrics.on_result(result(0))
    assert not answer.is_set()
    answer.set()


def test_the_series_is_one_over_all_repeats(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second pass starts no second thread."""
    monkeypatch.setattr(live, "INTERVAL_SECONDS", 60.0)
    with live_metrics(client) as metrics:
        metrics.on_start()
        metrics.on_start()
        assert [thread.name for thread in threading.enumerate()].count("live-progress") == 1
    assert "live-progress" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("wanted", [True, False])
def test_mlflows_system_metrics_are_there_when_asked_for(
    wanted: bool, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow reads this variable itself only in runs that its fluent API starts."""
    monkeypatch.setenv(SYSTEM_METRICS, str(wanted).lower())
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    monkeypatch.setenv(DELAY_VARIABLE, "0.1")
    monkeypatch.chdir(tmp_path)
    started = time.monotonic()
    benchmark.run(dataclasses.replace(CONFIG, repeats=2), Listener(), FakeEngine)
    assert time.monotonic() - started > 1.0
    (run,) = client.search_runs(["0"])
    assert ("system/cpu_utilization_percentage" in run.data.metrics) is wanted
