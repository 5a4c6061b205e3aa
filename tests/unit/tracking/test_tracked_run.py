"""A run ends with the right status, whatever ends it, and shows its progress before."""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import CONFIG
from tests.support.commands import interrupt
from tests.support.fakes import DELAY_VARIABLE, NO_GPU, FakeEngine
from whisperbench import benchmark
from whisperbench.errors import EngineError, TrackingError
from whisperbench.processes.owner import ProcessId
from whisperbench.processes.signals import Interrupted
from whisperbench.progress import Listener
from whisperbench.results.links import runs_path
from whisperbench.results.names import FAILURE, PROGRESS
from whisperbench.tracking import tracked_run as tracking
from whisperbench.tracking.experiment_page import update_experiment_page
from whisperbench.tracking.runs import PROCESS_TAG, open_run
from whisperbench.tracking.tracked_run import LiveProgress, TrackedRun, close_stale_runs, tracked_run

pytestmark = pytest.mark.usefixtures("no_project_run")


def fail() -> None:
    raise EngineError("out of memory")


def interrupted_and_converted() -> None:
    """Libraries that turn every exception into their own do not hide a signal."""
    try:
        interrupt()
    except BaseException as error:
        raise RuntimeError("engine dead") from error


class TestStatus:
    @pytest.mark.parametrize(
        ("end", "raised", "found"),
        [
            (lambda: None, None, ("FINISHED", None)),
            (fail, EngineError, ("FAILED", "out of memory")),
            (interrupt, Interrupted, ("KILLED", "SIGTERM")),
            (interrupted_and_converted, RuntimeError, ("KILLED", "SIGTERM")),
        ],
    )
    def test_how_a_block_ends(
        self, end: Callable[[], None], raised: type[BaseException] | None, found: tuple[str, str | None], client: Any
    ) -> None:
        """The status, and the cause in a tag; the error reaches the caller."""
        ended: BaseException | None = None
        try:
            with tracked_run(client, "demo") as run:
                end()
        except BaseException as error:
            ended = error
        held = client.get_run(run.run_id)
        assert (held.info.status, held.data.tags.get(FAILURE)) == found
        assert (type(ended) if ended else None) is raised

    def test_a_run_inside_a_run(self, client: Any) -> None:
        """A signal ends both as killed: a sweep and the run it was at."""
        with pytest.raises(Interrupted), tracked_run(client, "sweep") as outer, tracked_run(client, "child") as inner:
            interrupt()
        assert {client.get_run(run.run_id).info.status for run in (outer, inner)} == {"KILLED"}

    def test_a_signal_before_the_run_is_open(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """No run is left open."""
        monkeypatch.setattr(client, "create_run", lambda *_, **__: interrupt())
        with pytest.raises(Interrupted), tracked_run(client, "demo"):
            pytest.fail("the block must not begin")
        assert client.search_runs(["0"]) == []

    def test_a_signal_while_the_run_is_closed(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """It ends as killed, and is not left RUNNING."""
        really = client.set_terminated

        def interrupted(*_: Any) -> None:
            monkeypatch.setattr(client, "set_terminated", really)
            interrupt()

        monkeypatch.setattr(client, "set_terminated", interrupted)
        with pytest.raises(Interrupted), tracked_run(client, "demo") as run:
            pass
        assert client.get_run(run.run_id).info.status == "KILLED"

    def test_a_clock_that_is_set_back(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run does not end before its start."""
        with tracked_run(client, "demo") as run:
            set_back = time.time() - 3600
            monkeypatch.setattr(time, "time", lambda: set_back)
            monkeypatch.setattr(time, "time_ns", lambda: int(set_back * 1e9))
        info = client.get_run(run.run_id).info
        assert info.end_time >= info.start_time

    def test_a_server_that_is_gone_does_not_hide_the_cause(self, client: Any, tmp_path: Path) -> None:
        """The error of the block is reported."""
        with pytest.raises(EngineError, match="out of memory"), tracked_run(client, "demo"):  # noqa: PT012 - raised in the block
            (tmp_path / "mlflow.db").write_bytes(b"no database")
            fail()

    def test_runs_of_dead_processes_are_closed(self, client: Any) -> None:
        """Only those: not of this process, of another host or without an owner, and not one that has ended."""
        here = ProcessId.this()
        assert here is not None
        dead = dataclasses.replace(here, pid=4194399)
        owners = {"dead": dead, "living": here, "elsewhere": dataclasses.replace(dead, host="elsewhere"), "ended": dead}
        runs = {"silent": client.create_run("0").info.run_id}
        for name, owner in owners.items():
            runs[name] = open_run(client, experiment=None, run_id=None, name=name, tags={})
            client.set_tag(runs[name], PROCESS_TAG, str(owner))
        client.set_terminated(runs["ended"], "FINISHED")
        assert close_stale_runs(client) == [f"dead ({runs['dead']}), whose process 4194399 is dead"]
        assert close_stale_runs(client) == []
        status = {name: client.get_run(run_id).info.status for name, run_id in runs.items()}
        assert status == {
            "dead": "KILLED", "living": "RUNNING", "elsewhere": "RUNNING", "silent": "RUNNING", "ended": "FINISHED",
        }  # fmt: skip


def test_the_printed_links(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The UI of a database is started by a command that this environment has, on the port that the links name."""
    run = TrackedRun(client, client.create_run("0").info.run_id)
    monkeypatch.setenv("MLFLOW_PORT", "5077")
    assert run.where().endswith(f"All runs: http://127.0.0.1:5077/{runs_path('0', view=False)}")  # it has no view yet
    update_experiment_page(client, "0")
    own = f"http://127.0.0.1:5077/#/experiments/0/runs/{run.run_id}?workflowType=machine_learning"
    without_package = f"mlflow ui --backend-store-uri {client.tracking_uri} --port 5077"
    for program, command in (("whisperbench", "whisperbench ui"), (None, without_package)):
        monkeypatch.setattr(tracking, "typed_command", lambda program=program: program)
        assert run.where().splitlines() == [
            f"View the results: {command}",
            f"This run: {own}",
            f"All runs: http://127.0.0.1:5077/{runs_path('0')}",
        ]


class TestProgress:
    def test_a_run_fills_while_it_is_measured(
        self, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Params, data set and description come first, then the progress, which the result replaces."""
        monkeypatch.setattr(tracking, "INTERVAL_SECONDS", 0.05)
        monkeypatch.setenv(DELAY_VARIABLE, "0.1")
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
        monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
        monkeypatch.chdir(tmp_path)
        seen: list[Any] = []
        log_now = tracking.log_now

        def look(*arguments: Any, **options: Any) -> None:
            log_now(*arguments, **options)
            if PROGRESS in options["tags"]:
                seen.append(client.get_run(arguments[1]))

        monkeypatch.setattr(tracking, "log_now", look)
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
        own = {name for name in run.data.metrics if not name.startswith("system/")}
        assert own == bundle.contents.metrics.keys()
        assert "system/cpu_utilization_percentage" in run.data.metrics

    def test_an_error_or_a_hanging_server_does_not_affect_the_result(
        self, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The progress is logged again after an error; the measurement ends while a request is still open."""
        failed, asked, answer = threading.Event(), threading.Event(), threading.Event()

        def refuse_then_hang(*_: Any, **__: Any) -> None:
            if not failed.is_set():
                failed.set()
                raise TrackingError("gone")
            asked.set()
            answer.wait(60)

        monkeypatch.setattr(tracking, "INTERVAL_SECONDS", 0.01)
        monkeypatch.setattr(tracking, "EXIT_SECONDS", 0.1)
        monkeypatch.setattr(tracking, "log_now", refuse_then_hang)
        with LiveProgress(client, "run", NO_GPU) as progress:
            progress.on_start()
            progress.on_start()  # of the second repeat
            assert asked.wait(10)
            assert [thread.name for thread in threading.enumerate()].count("live-progress") == 1
        assert not answer.is_set()
        answer.set()
