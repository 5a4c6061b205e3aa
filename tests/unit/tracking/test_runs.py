"""Runs on real stores and a real server: what is logged, under which status, and what never is."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Param
from mlflow.exceptions import MlflowException

from tests.support.bundles import DATASET, contents_of, held_by, result_in
from whisperbench.config.benchmark import MAX_REPEATS
from whisperbench.errors import ConfigError, TrackingError
from whisperbench.results import environment
from whisperbench.results.environment import git_commit, git_is_dirty
from whisperbench.results.names import FAILURE, PROGRESS, REPEATS
from whisperbench.results.run_info import RunData
from whisperbench.tracking import runs as tracking
from whisperbench.tracking.client import connect
from whisperbench.tracking.runs import NOTE_TAG
from whisperbench.tracking.upload import upload_bundle

pytestmark = pytest.mark.usefixtures("no_project_run")

SECRET = "s3cret-pa55word"  # noqa: S105


def opened(client: Any, *, run_id: str | None = None, **tags: str) -> str:
    return tracking.open_run(client, experiment=None, run_id=run_id, name="demo-auto-128", tags=tags)


class TestLogging:
    def test_a_run_holds_what_its_bundle_holds(self, client: Any, tmp_path: Path) -> None:
        """Params, metrics, tags, the data set and every artifact, under the same timestamps if it is logged twice.

        Repeats are a tag, because MLflow's charts of further metrics would precede those of the results, and fit in
        it with all their digits.
        """
        rates = {name: [1000 / 7 + i for i in range(MAX_REPEATS)] for name in ("a", "b", "c", "d")}
        bundle, run_id = result_in(tmp_path / "results", contents_of(history=rates)), opened(client)
        tracking.log_now(client, run_id, tags={PROGRESS: "7 utterances finished"})
        tracking.log_bundle(client, run_id, bundle)
        found = held_by(client, run_id, tmp_path / "once")
        assert found["params"] == bundle.contents.params
        assert found["last metrics"] == bundle.contents.metrics
        assert bundle.contents.tags.items() <= found["tags"].items()
        assert found["data sets"][0][:2] == ("demo", "d" * 32)
        assert set(found["artifacts"]) == {"config.json", "environment.txt", "transcripts.json", "samples/samples.html"}
        assert found["tags"][REPEATS].startswith("a=142.857,143.857,")
        assert found["tags"][REPEATS].count(",") == 4 * (MAX_REPEATS - 1)
        assert PROGRESS not in found["tags"]
        tracking.log_bundle(client, run_id, bundle)
        assert held_by(client, run_id, tmp_path / "twice") == found

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

    def test_a_run_that_has_failed_is_running_again(self, client: Any) -> None:
        """For example a sweep that continues after it was interrupted; the cause of the failure is removed."""
        run_id = opened(client)
        tracking.close_run(client, run_id, "FAILED", "no memory")
        run = client.get_run(opened(client, run_id=run_id))
        assert (run.info.status, FAILURE in run.data.tags) == ("RUNNING", False)

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
        ("kind", "lost", "example"),
        [
            ("params", "model", "the param model"),
            ("metrics", "wer", "the metric wer"),
            ("tags", REPEATS, "the tag whisperbench.repeats"),
        ],
    )
    def test_what_is_lost_is_found(
        self, kind: str, lost: str, example: str, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server or a proxy that answers 200 and stores nothing; the next upload completes the run."""
        run_id, bundle, send = opened(client), result_in(tmp_path / "results"), client.log_batch

        def log_batch(run: str, **values: Any) -> None:
            send(run, **{**values, kind: [each for each in values[kind] if each.key != lost]})

        with monkeypatch.context() as patch:
            patch.setattr(client, "log_batch", log_batch)
            with pytest.raises(TrackingError, match=f"lacks 1 part.* for example {example}"):
                tracking.log_bundle(client, run_id, bundle)
        client.set_terminated(run_id, "FINISHED")
        assert upload_bundle(client, bundle) == (run_id, True)
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
        ("given", "variables", "expected"),
        [
            (None, {}, "Default"),
            (None, {"MLFLOW_EXPERIMENT_NAME": "named"}, "named"),
            (None, {"MLFLOW_EXPERIMENT_NAME": "named", "MLFLOW_EXPERIMENT_ID": "1"}, "numbered"),
            ("given", {"MLFLOW_EXPERIMENT_NAME": "named", "MLFLOW_EXPERIMENT_ID": "1"}, "given"),
        ],
    )
    def test_the_experiment_of_a_run(
        self, given: str | None, variables: dict[str, str], expected: str, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """MLFLOW_EXPERIMENT_ID, else MLFLOW_EXPERIMENT_NAME, else `Default`, as `mlflow run`, if none is given."""
        assert client.create_experiment("numbered") == "1"
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        run_id = tracking.open_run(client, experiment=given, run_id=None, name="demo", tags={})
        assert client.get_experiment(client.get_run(run_id).info.experiment_id).name == expected

    @pytest.mark.parametrize("variable", ["MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"])
    def test_a_variable_that_names_something_deleted(
        self, variable: str, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The message names the variable, because the server is not at fault."""
        experiment, run_id = client.create_experiment("old"), opened(client)
        client.delete_experiment(experiment)
        client.delete_run(run_id)
        values = {"MLFLOW_EXPERIMENT_ID": experiment, "MLFLOW_EXPERIMENT_NAME": "old", "MLFLOW_RUN_ID": run_id}
        monkeypatch.setenv(variable, values[variable])
        with pytest.raises(TrackingError, match=f"Check or unset {variable}"):
            opened(client, run_id=run_id if variable == "MLFLOW_RUN_ID" else None)


class TestSource:
    @pytest.mark.skipif(git_commit() is None, reason="needs a git checkout")
    def test_a_run_has_the_commit_of_the_package(
        self, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also for a console script and a working directory outside the checkout."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin" / "whisperbench")])
        assert client.get_run(opened(client)).data.tags["mlflow.source.git.commit"] == git_commit()

    def test_outside_a_checkout_no_commit_is_known(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A package in site-packages does not take the commit of a repository around it."""
        monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
        assert git_commit() is git_is_dirty() is None


def test_artifacts_that_cannot_be_written(client: Any, tmp_path: Path) -> None:
    """Found out with the first artifact, before an hour is spent."""
    (tmp_path / "file").touch()
    experiment = client.create_experiment("blocked", str(tmp_path / "file" / "artifacts"))
    run_id = client.create_run(experiment).info.run_id
    with pytest.raises(TrackingError, match="failed to log text"):
        client.log_text(run_id, "python 3.11", "environment.txt")


def test_a_failed_run_states_the_cause_in_its_description(client: Any) -> None:
    """Once, above the rest, in lines that MLflow does not have to wrap, and with its markdown as it is."""
    run_id = opened(client, **{NOTE_TAG: "The command: `x`"})
    for _ in range(2):  # a sweep closes what has closed itself
        tracking.close_run(client, run_id, "FAILED", "out of memory: " + "lower max_num_seqs " * 10 + "\n**now**")
    lines = client.get_run(run_id).data.tags[NOTE_TAG].splitlines()
    assert (lines[0], lines[-3:]) == ("**The run failed.**", ["    **now**", "", "The command: `x`"])
    assert (max(map(len, lines)) <= 104, "".join(lines).count("max_num_seqs")) == (True, 10)
    assert client.get_run(run_id).info.status == "FAILED"


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
