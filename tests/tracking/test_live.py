"""A run while it is measured: what it shows, and that the measurement does not depend on it."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import CONFIG, DATASET, transcript
from tests.support.fakes import DELAY_VARIABLE, NO_GPU, FakeEngine
from whisperbench import benchmark
from whisperbench.errors import TrackingError
from whisperbench.listener import Listener
from whisperbench.results.contents import run_start
from whisperbench.tracking import live, write
from whisperbench.tracking.live import LiveRun

pytestmark = pytest.mark.usefixtures("no_project_run")


class Heard(Listener):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warned(self, sentence: str) -> None:
        self.warnings.append(sentence)


def watched(client: Any, run_id: str, listener: Listener | None = None) -> LiveRun:
    return LiveRun(client, run_id, NO_GPU, "en", listener or Listener())


def history(client: Any, run_id: str, name: str) -> list[float]:
    return [m.value for m in client.get_metric_history(run_id, name)]


def test_a_run_fills_while_it_is_measured(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Params, data set and description first, then a series of metrics that no final metric mixes with."""
    monkeypatch.setattr(live, "LIVE_SECONDS", 0.05)
    monkeypatch.setattr(live, "SHARE", 1.0)
    monkeypatch.setenv(DELAY_VARIABLE, "0.1")
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []
    really = write.log_live

    def look(*arguments: Any) -> None:
        really(*arguments)
        seen.append(client.get_run(arguments[1]))

    monkeypatch.setattr(write, "log_live", look)
    bundle = benchmark.run(dataclasses.replace(CONFIG, repeats=3), Listener(), FakeEngine)
    (run,) = client.search_runs(["0"])
    early = seen[0]
    assert (early.info.status, early.info.run_name) == ("RUNNING", "demo-auto-128_demo_CPU")
    assert early.data.params["gpu_name"] == run.data.params["gpu_name"]
    assert early.inputs.dataset_inputs[0].dataset.digest == run.data.tags["dataset.digest"]
    assert "The command: `mlflow run . -P model=demo" in early.data.tags["mlflow.note.content"]
    assert "reqs_per_sec" not in early.data.metrics
    finished = history(client, run.info.run_id, "live/finished")
    assert len(finished) > 2
    assert finished == sorted(finished)
    assert finished[-1] <= 24
    assert run.data.metrics["live/wer"] == pytest.approx(run.data.metrics["wer"], abs=30)
    assert run.data.metrics["live/reqs_per_sec"] == pytest.approx(run.data.metrics["reqs_per_sec"], rel=0.3)
    assert not {name for name in run.data.metrics if name.startswith("live/gpu")}
    assert history(client, run.info.run_id, "reqs_per_sec") == [bundle.contents.metrics["reqs_per_sec"]]
    assert "live/" not in str(bundle.contents)


def test_a_server_that_went_away_loses_live_metrics_only(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are tried again, and nobody is told: the result is what counts."""
    tries = threading.Semaphore(0)

    def refuse(*_: Any) -> None:
        tries.release()
        raise TrackingError("gone")

    monkeypatch.setattr(live, "LIVE_SECONDS", 0.01)
    monkeypatch.setattr(live, "SHARE", 1.0)
    monkeypatch.setattr(write, "log_live", refuse)
    with watched(client, client.create_run("0").info.run_id) as run:
        run.clock_started()
        assert tries.acquire(timeout=10)
        assert tries.acquire(timeout=10)


def test_a_server_that_hangs_holds_up_nothing(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end it has a moment, and then the result goes on without it."""
    asked, answer = threading.Event(), threading.Event()

    def hang(*_: Any) -> None:
        asked.set()
        answer.wait(60)

    monkeypatch.setattr(live, "LIVE_SECONDS", 0.01)
    monkeypatch.setattr(live, "LAST_WORD_SECONDS", 0.1)
    monkeypatch.setattr(write, "log_live", hang)
    started = time.monotonic()
    with watched(client, client.create_run("0").info.run_id) as run:
        run.clock_started()
        assert asked.wait(10)
        run.finished(transcript(0))
    answer.set()
    assert time.monotonic() - started < 5


def test_the_clock_is_left_alone(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What costs 20 ms of a core is done once in 2 s, at one percent; and a text costs microseconds."""
    times: list[float] = []

    def costs(*_: Any) -> None:
        times.append(time.monotonic())
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass

    monkeypatch.setattr(live, "LIVE_SECONDS", 0.01)
    monkeypatch.setattr(write, "log_live", costs)
    with watched(client, client.create_run("0").info.run_id) as run:
        run.clock_started()
        before = time.thread_time()
        for number in range(10_000):
            run.finished(transcript(0) if number < 1 else LONG)
        assert (time.thread_time() - before) / 10_000 < 20e-6
        time.sleep(1.0)
    assert len(times) == 1


LONG = dataclasses.replace(transcript(1), reference="one word after the other " * 8, hypothesis="one word " * 8)


def test_without_params_at_the_start_the_measurement_goes_on(client: Any, tmp_path: Path) -> None:
    """A person is told; they come with the result."""
    heard = Heard()
    run = watched(client, client.create_run("0").info.run_id, heard)
    (tmp_path / "mlflow.db").write_bytes(b"no database")
    run.known(run_start(CONFIG, NO_GPU, DATASET, "demo"))
    (warning,) = heard.warnings
    assert warning.endswith("The measurement goes on; the run is filled when it is over.")


@pytest.mark.parametrize("wanted", [True, False])
def test_mlflows_system_metrics_are_there_when_asked_for(
    wanted: bool, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING, which MLflow itself reads in runs that it starts."""
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", str(wanted).lower())
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    run_id = client.create_run("0").info.run_id
    with watched(client, run_id):
        time.sleep(1.0 if wanted else 0.0)
    found = {name for name in client.get_run(run_id).data.metrics if name.startswith("system/")}
    assert ("system/cpu_utilization_percentage" in found) is wanted
