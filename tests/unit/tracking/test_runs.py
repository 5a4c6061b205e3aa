"""Runs on real stores and a real server: what is logged, under which status, and what never is."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Param
from mlflow.exceptions import MlflowException

from tests.support.bundles import DATASET, contents_of, held_by, result_in
from tests.support.stores import fresh_store
from whisperbench.config.benchmark import MAX_REPEATS
from whisperbench.errors import ConfigError, TrackingError
from whisperbench.processes.owner import ProcessId
from whisperbench.results import environment
from whisperbench.results.environment import git_commit, git_is_dirty
from whisperbench.results.names import FAILURE, PROGRESS, REPEATS
from whisperbench.results.run_info import RunData
from whisperbench.tracking import runs as tracking
from whisperbench.tracking.client import connect
from whisperbench.tracking.runs import BUNDLE_TAG, PROCESS_TAG
from whisperbench.tracking.stale import close_stale_runs
from whisperbench.tracking.upload import upload_bundle

pytestmark = pytest.mark.usefixtures("no_project_run")

SECRET = "s3cret-pa55word"  # noqa: S105


@pytest.fixture
def client(tmp_path: Path, empty_store: Path) -> Any:
    return connect(fresh_store(tmp_path, empty_store))


def opened(client: Any, *, run_id: str | None = None, **tags: str) -> str:
    return tracking.open_run(client, experiment=None, run_id=run_id, name="demo-auto-128", tags=tags)


class TestLogging:
    def test_a_run_holds_what_its_bundle_holds(self, client: Any, tmp_path: Path) -> None:
        """Params, metrics, tags, the data set with its digest, and every artifact."""
        bundle, run_id = result_in(tmp_path / "results"), opened(client)
        tracking.log_bundle(client, run_id, bundle)
        found = held_by(client, run_id, tmp_path / "download")
        assert found["params"] == bundle.contents.params
        assert bundle.contents.metrics.items() <= found["last metrics"].items()
        assert bundle.contents.tags.items() <= found["tags"].items()
        assert found["data sets"][0][:2] == ("demo", "d" * 32)
        assert set(found["artifacts"]) == {"config.json", "environment.txt", "transcripts.json", "samples/samples.html"}

    def test_repeats_are_a_tag_and_not_metrics(self, client: Any, tmp_path: Path) -> None:
        """MLflow's charts of further metrics would precede those of the results; the tag of the progress is deleted."""
        run_id = opened(client)
        tracking.log_now(client, run_id, tags={PROGRESS: "7 utterances finished"})
        tracking.log_bundle(client, run_id, result_in(tmp_path / "results"))
        held = client.get_run(run_id).data
        assert held.metrics.keys() == {"wer", "reqs_per_sec"}
        assert held.tags[REPEATS] == "reqs_per_sec=40,41,42"
        assert PROGRESS not in held.tags

    def test_what_is_known_before_the_engine_starts(self, client: Any, tmp_path: Path) -> None:
        """Params, tags, the data set with its rows, and a description; the result then takes their place."""
        run_id = opened(client)
        data = dataclasses.replace(contents_of().dataset, rows=8)
        tracking.log_start(client, run_id, RunData("demo", {"model": "demo"}, {"gpu": "CPU"}, "Measuring demo", data))
        run = client.get_run(run_id)
        assert (run.data.params, run.data.tags["gpu"]) == ({"model": "demo"}, "CPU")
        assert run.data.tags["mlflow.note.content"] == "Measuring demo"
        assert json.loads(run.inputs.dataset_inputs[0].dataset.profile) == {"split": "all", "num_rows": 8}
        bundle = result_in(tmp_path / "results")
        tracking.log_bundle(client, run_id, bundle)
        run = client.get_run(run_id)
        assert run.data.params == bundle.contents.params
        assert run.data.tags["mlflow.note.content"] == bundle.contents.description
        assert len(run.inputs.dataset_inputs) == 1

    def test_logging_twice_changes_nothing(self, client: Any, tmp_path: Path) -> None:
        """The same values under the same timestamps."""
        bundle, run_id = result_in(tmp_path / "results"), opened(client)
        tracking.log_bundle(client, run_id, bundle)
        once = held_by(client, run_id, tmp_path / "once")
        tracking.log_bundle(client, run_id, bundle)
        assert held_by(client, run_id, tmp_path / "twice") == once

    def test_params_that_mlflow_has_logged_stay(self, client: Any, tmp_path: Path) -> None:
        """`mlflow run` logs the declared ones first, quoted for a shell; they are write-once."""
        run_id = client.create_run("0").info.run_id
        client.log_param(run_id, "model", "'demo'")
        attached = tracking.open_run(client, experiment=None, run_id=run_id, name="demo", tags={})
        tracking.log_bundle(client, attached, result_in(tmp_path / "results"))
        assert client.get_run(run_id).data.params["model"] == "'demo'"

    @pytest.mark.parametrize(("given", "kept"), [("mine", "mine"), ("large-v3-918", "large-v3-918"), (None, "demo")])
    def test_only_the_name_that_the_user_gave_stays(self, client: Any, given: str | None, kept: str) -> None:
        """`mlflow run --run-name`; without it MLflow makes up one like `dapper-stoat-918`."""
        run_id = client.create_run("0", run_name=given).info.run_id
        tracking.open_run(client, experiment=None, run_id=run_id, name="demo", tags={})
        assert client.get_run(run_id).info.run_name == kept


class TestRunsThatAreTaken:
    @pytest.mark.parametrize("state", ["logged", "finished"])
    def test_a_run_that_holds_a_result_is_refused(self, state: str, client: Any, tmp_path: Path) -> None:
        """A job scheduler sets MLFLOW_RUN_ID for all commands of a job; the second one must not fill the same run."""
        run_id = opened(client)
        if state == "logged":
            tracking.log_bundle(client, run_id, result_in(tmp_path / "results"))
        else:
            tracking.close_run(client, run_id, "FINISHED")
        before = held_by(client, run_id, tmp_path / "before")
        with pytest.raises(
            ConfigError, match=f"MLFLOW_RUN_ID={run_id} .* already holds a result.* Unset MLFLOW_RUN_ID"
        ):
            tracking.open_run(client, experiment=None, run_id=run_id, name="demo", tags={"gpu": "other"})
        assert held_by(client, run_id, tmp_path / "after") == before

    def test_a_run_with_params_of_another_measurement_is_refused(self, client: Any) -> None:
        """Params are write-once, so the second measurement would be recorded with those of the first."""
        run_id = opened(client)
        start = RunData("demo", {"model": "base", "max_num_seqs": "8"}, {}, "", DATASET)
        client.log_batch(run_id, params=[Param("model", "'base'"), Param("max_num_seqs", "8")])  # as `mlflow run` does
        tracking.log_start(client, run_id, start)
        with pytest.raises(ConfigError, match=r"with model='base' instead of tiny.* Unset MLFLOW_RUN_ID"):
            tracking.log_start(client, run_id, dataclasses.replace(start, params={"model": "tiny"}))


class TestWhatTheServerReturns:
    @pytest.mark.parametrize(
        ("lost", "example"),
        [
            ({"params": ["model"]}, "the param model"),
            ({"metrics": ["wer"]}, "the metric wer"),
            ({"tags": [REPEATS]}, "the tag whisperbench.repeats"),
            ({"tags": [BUNDLE_TAG]}, "the tag whisperbench.bundle"),
        ],
    )
    def test_what_is_lost_is_found(
        self, lost: dict[str, list[str]], example: str, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server or a proxy that answers 200 and stores nothing; the next upload completes the run."""
        run_id, bundle, send = opened(client), result_in(tmp_path / "results"), client.log_batch

        def log_batch(run: str, **values: Any) -> None:
            send(run, **{k: [each for each in v if each.key not in lost.get(k, [])] for k, v in values.items()})

        with monkeypatch.context() as patch:
            patch.setattr(client, "log_batch", log_batch)
            with pytest.raises(TrackingError, match=f"lacks 1 part.* for example {example}"):
                tracking.log_bundle(client, run_id, bundle)
        client.set_tag(run_id, BUNDLE_TAG, bundle.id)
        client.set_terminated(run_id, "FINISHED")
        assert upload_bundle(client, bundle) == (run_id, lost != {"tags": [BUNDLE_TAG]})
        assert upload_bundle(client, bundle) == (run_id, False)

    def test_logging_is_synchronous(self, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """MLFLOW_ENABLE_ASYNC_LOGGING would log in a thread whose errors are lost."""
        monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
        again, run_id = connect(client.tracking_uri), opened(client)

        def log_batch(*_: Any, **__: Any) -> None:
            raise MlflowException("HTTP 500")

        monkeypatch.setattr(type(again._tracking_client.store), "log_batch", log_batch)
        with pytest.raises(TrackingError, match="HTTP 500"):
            tracking.log_bundle(again, run_id, result_in(tmp_path / "results"))


class TestExperiment:
    @pytest.mark.parametrize(
        ("variables", "expected"),
        [
            ({}, "Default"),
            ({"MLFLOW_EXPERIMENT_NAME": "named"}, "named"),
            ({"MLFLOW_EXPERIMENT_NAME": "named", "MLFLOW_EXPERIMENT_ID": "{id}"}, "numbered"),
        ],
    )
    def test_the_default_experiment(
        self, variables: dict[str, str], expected: str, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """MLFLOW_EXPERIMENT_ID, else MLFLOW_EXPERIMENT_NAME, else `Default`, as `mlflow run`."""
        numbered = client.create_experiment("numbered")
        for name, value in variables.items():
            monkeypatch.setenv(name, value.format(id=numbered))
        for _ in range(2):
            experiment = client.get_experiment(client.get_run(opened(client)).info.experiment_id)
            assert experiment.name == expected

    @pytest.mark.parametrize("variable", ["MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"])
    def test_a_deleted_experiment(self, variable: str, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message names the command that restores it, because to repeat the command does not help."""
        deleted = client.create_experiment("old")
        client.delete_experiment(deleted)
        monkeypatch.setenv(variable, deleted if variable.endswith("ID") else "old")
        message = f"'old' is deleted. .*restore --experiment-id {deleted}`, or set {variable}"
        with pytest.raises(TrackingError, match=message):
            opened(client)

    @pytest.mark.parametrize("variable", ["MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"])
    def test_a_variable_that_names_nothing(self, variable: str, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message names the variable, because the server is not at fault."""
        value = "999" if variable.endswith("T_ID") else "x" * 600
        monkeypatch.setenv(variable, value)
        with pytest.raises(TrackingError, match=f"Check or unset {variable}"):
            opened(client, run_id=value if variable == "MLFLOW_RUN_ID" else None)

    def test_a_deleted_run(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        run_id = opened(client)
        client.delete_run(run_id)
        monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
        with pytest.raises(TrackingError, match="Check or unset MLFLOW_RUN_ID"):
            opened(client, run_id=run_id)

    def test_a_named_experiment_takes_precedence(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The variables are for runs without one."""
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
        run_id = tracking.open_run(client, experiment="speech", run_id=None, name="demo", tags={})
        assert client.get_experiment(client.get_run(run_id).info.experiment_id).name == "speech"


class TestSource:
    @pytest.mark.skipif(git_commit() is None, reason="needs a git checkout")
    def test_a_run_has_the_commit_of_the_package(
        self, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also for a console script, whose path is outside the checkout."""
        monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin" / "whisperbench")])
        assert client.get_run(opened(client)).data.tags["mlflow.source.git.commit"] == git_commit()

    def test_outside_a_checkout_no_commit_is_known(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A package in site-packages does not take the commit of a repository around it."""
        monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
        assert git_commit() is git_is_dirty() is None


class TestPreflight:
    @pytest.mark.parametrize("answers", [True, False])
    def test_a_server_that_is_down_or_silent(self, answers: bool) -> None:
        """Known within 10 s, by its address and without the password."""
        with contextlib.closing(socket.socket()) as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
            if answers:
                listener.listen()
            started = time.perf_counter()
            with pytest.raises(TrackingError, match=f"127.0.0.1:{port}") as caught:
                connect(f"http://ann:{SECRET}@127.0.0.1:{port}")
        assert time.perf_counter() - started < 10
        assert SECRET not in str(caught.value)

    def test_a_schema_of_another_version(self, client: Any, tmp_path: Path) -> None:
        """A store that needs a migration is refused before the engine starts, not after it."""
        import sqlite3

        assert client.search_experiments()
        old = tmp_path / "old.db"
        old.write_bytes((tmp_path / "mlflow.db").read_bytes())
        with contextlib.closing(sqlite3.connect(old)) as database, database:
            database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        with pytest.raises(TrackingError, match="out-of-date"):
            connect(f"sqlite:///{old}")

    def test_artifacts_that_cannot_be_written(self, client: Any, tmp_path: Path) -> None:
        """Found out with the first artifact, before an hour is spent."""
        (tmp_path / "file").touch()
        experiment = client.create_experiment("blocked", str(tmp_path / "file" / "artifacts"))
        run_id = client.create_run(experiment).info.run_id
        with pytest.raises(TrackingError, match="failed to store artifacts"):
            tracking.log_texts(client, run_id, {"environment.txt": "python 3.11"})


class TestStatus:
    @pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
    def test_a_run_ends_as_it_is_told(self, client: Any, status: str) -> None:
        """With the cause in a tag."""
        run_id = opened(client)
        tracking.close_run(client, run_id, status, None if status == "FINISHED" else "why")
        run = client.get_run(run_id)
        assert (run.info.status, run.data.tags.get(FAILURE)) == (status, None if status == "FINISHED" else "why")

    def test_runs_of_dead_processes_are_closed(self, client: Any) -> None:
        """Only those: not this process's, not another host's, not one that says nothing, not one that has ended."""
        here = ProcessId.this()
        assert here is not None
        dead = dataclasses.replace(here, pid=4194399)
        runs = {
            "dead": opened(client),
            "living": opened(client),
            "elsewhere": opened(client),
            "silent": client.create_run("0").info.run_id,
            "ended": opened(client),
        }
        client.set_tag(runs["dead"], PROCESS_TAG, str(dead))
        client.set_tag(runs["ended"], PROCESS_TAG, str(dead))
        client.set_tag(runs["elsewhere"], PROCESS_TAG, str(dataclasses.replace(dead, host="elsewhere")))
        client.set_terminated(runs["ended"], "FINISHED")
        (closed,) = close_stale_runs(client)
        assert closed == f"demo-auto-128 ({runs['dead']}), whose process 4194399 is dead"
        assert close_stale_runs(client) == []
        status = {name: client.get_run(run_id).info.status for name, run_id in runs.items()}
        assert status == {
            "dead": "KILLED", "living": "RUNNING", "elsewhere": "RUNNING", "silent": "RUNNING", "ended": "FINISHED",
        }  # fmt: skip


class TestSecrets:
    def test_a_token_that_mlflow_run_has_noted(self, client: Any) -> None:
        """`mlflow run https://token@git…` tags the run before our code runs: the tag is overwritten."""
        run_id = client.create_run("0", tags={"mlflow.source.name": f"https://{SECRET}@git.example/x"}).info.run_id
        tracking.open_run(client, experiment=None, run_id=run_id, name="demo", tags={})
        assert client.get_run(run_id).data.tags["mlflow.source.name"] == "https://***@git.example/x"

    def test_a_token_in_an_error(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The failure tag holds no value of a secret variable, and no NUL, which Postgres refuses."""
        monkeypatch.setenv("HF_TOKEN", SECRET)
        run_id = opened(client)
        tracking.close_run(client, run_id, "FAILED", f"401 for {SECRET}\0 at https://u:{SECRET}@hub.example")
        assert client.get_run(run_id).data.tags[FAILURE] == "401 for ***\\x00 at https://***@hub.example"

    def test_a_user_goes_by_the_name_on_the_server(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a rented machine everybody is root."""
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
        assert client.get_run(opened(client)).data.tags["mlflow.user"] == "ann"


def test_the_rates_of_the_most_repeats_fit_in_a_tag(client: Any, tmp_path: Path) -> None:
    """Of four rates with all their digits."""
    contents = contents_of(history={name: [1000 / 7 + i for i in range(MAX_REPEATS)] for name in ("a", "b", "c", "d")})
    run_id = opened(client)
    tracking.log_bundle(client, run_id, result_in(tmp_path / "results", contents))
    assert client.get_run(run_id).data.tags[REPEATS].count(",") == 4 * (MAX_REPEATS - 1)
