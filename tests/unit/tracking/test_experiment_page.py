"""What a person finds who opens an experiment: its saved view, its description, and links that lead there."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.stores import log, run_of
from whisperbench.cli.ui import print_links
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.results.keys import key
from whisperbench.results.links import VIEW, Links, runs_path
from whisperbench.results.names import ACCURACY_KEY
from whisperbench.tracking.experiment_page import (
    COLUMNS,
    VIEW_TAG,
    WRITTEN_TAG,
    description,
    saved_view,
    update_experiment_page,
)
from whisperbench.tracking.runs import NOTE_TAG

pytestmark = pytest.mark.usefixtures("no_project_run")


@pytest.fixture(scope="module")
def user_interface() -> str:
    """The program of MLflow's pages, as the pinned version ships it."""
    distribution = importlib.metadata.distribution("mlflow")
    place = Path(str(distribution.locate_file("mlflow/server/js/build/static/js")))
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(place.glob("*.js")))


class TestSavedView:
    def test_it_is_what_the_pages_read(self, user_interface: str) -> None:
        """The tag's name, the parameter of the address, and a state with fields that the pages take over."""
        assert f'"{VIEW_TAG.removesuffix(VIEW)}"' in user_interface
        assert '"viewStateShareKey"' in user_interface
        assert f"?viewStateShareKey={VIEW}&workflowType=machine_learning" in runs_path("1")
        view = json.loads(saved_view(5))
        envelope = "Invalid saved-view envelope: expected an object with a string `name`, number `createdAt`"
        assert envelope in user_interface
        assert [type(view[name]) for name in ("name", "createdAt", "updatedAt", "state")] == [str, int, int, str]
        (facets,) = set(re.findall(r'\["searchFilter","orderByKey"[^]]*\]', user_interface))
        (shown,) = set(re.findall(r'\["selectedColumns","columnOrder"[^]]*\]', user_interface))
        assert json.loads(view["state"]).keys() <= {*json.loads(facets), *json.loads(shown)}

    def test_its_columns_are_those_of_a_run(self, client: Any) -> None:
        """Params and metrics that a run has, and an order and a filter for finished runs that the server takes."""
        best = log(client, run_of(wer=2.0))
        log(client, run_of(wer=3.0))
        log(client, run_of(wer=1.0), status="FAILED")
        log(client, run_of(BenchmarkConfig(model="large-v3", load_format="dummy"), wer=0.5))
        client.create_run(client.get_run(best).info.experiment_id)
        run, state = client.get_run(best), json.loads(json.loads(saved_view(0))["state"])
        for column in COLUMNS:
            kind, name = re.fullmatch(r"(\w+)\.`(\w+)`", column).groups()  # type: ignore[union-attr]
            assert name in getattr(run.data, kind), column
        assert {"metrics.`wer`", "params.`gpu_name`", "params.`max_num_seqs`"} <= COLUMNS.keys()
        assert list(COLUMNS) == state["selectedColumns"] == state["columnOrder"]
        assert state["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "corpus"}]
        order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
        found = client.search_runs([run.info.experiment_id], state["searchFilter"], order_by=[order])
        assert [each.data.metrics["wer"] for each in found] == [2.0, 3.0]


class TestDescription:
    def test_it_names_the_best_runs_on_the_most_words(self, client: Any) -> None:
        """A smoke test does not take the place of a full run; of equal WERs the faster one is the most accurate."""
        whole = {"reference_words": 52_576.0}
        log(client, run_of(wer=2.0, rate=40.0, metrics=whole, name="slow"))
        accurate = log(client, run_of(wer=2.0, rate=50.0, metrics=whole, name="a|b"))
        fast = log(client, run_of(wer=3.0, rate=150.0, metrics=whole, name="fast", tags={"corpus": "test-clean"}))
        part = key(dataset="d1" * 16, limit=8, normalizer="n", language="en", long_audio="split")
        smoke = {ACCURACY_KEY: part}
        log(
            client, run_of(BenchmarkConfig(limit=8), wer=0.0, rate=900.0, metrics={"reference_words": 99.0}, tags=smoke)
        )
        experiment = client.get_run(fast).info.experiment_id
        text = description(client, experiment)
        assert runs_path(experiment) in text
        assert "(52,576 words)" in text
        assert f"| most accurate | [a\\|b](#/experiments/{experiment}/runs/{accurate}?" in text
        assert "| NVIDIA H100 80GB HBM3 | 2.00 | 50.00 |" in text
        assert f"| fastest | [fast](#/experiments/{experiment}/runs/{fast}?" in text
        for example in re.findall(r"^- `(.*)`$", text, re.M):
            client.search_runs([experiment], example)

    def test_what_somebody_has_written_stays(self, client: Any) -> None:
        """Ours is renewed, a person's is not, and the view is there either way."""
        first = log(client, run_of(wer=3.0, metrics={"reference_words": 10.0}))
        experiment = client.get_run(first).info.experiment_id
        update_experiment_page(client, experiment)
        assert "| 3.00 |" in client.get_experiment(experiment).tags[NOTE_TAG]
        log(client, run_of(wer=2.0, metrics={"reference_words": 10.0}))
        update_experiment_page(client, experiment)
        assert "| 2.00 |" in client.get_experiment(experiment).tags[NOTE_TAG]
        client.set_experiment_tag(experiment, NOTE_TAG, "ours")
        update_experiment_page(client, experiment)
        tags = client.get_experiment(experiment).tags
        assert (tags[NOTE_TAG], WRITTEN_TAG in tags, VIEW_TAG in tags) == ("ours", True, True)

    def test_a_server_that_refuses_takes_nothing_away(self, client: Any, tmp_path: Path) -> None:
        """What was measured does not depend on it."""
        (tmp_path / "mlflow.db").write_bytes(b"no database")
        update_experiment_page(client, "0")


def test_the_pages_of_a_store_are_listed_and_written(
    client: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those with runs of the benchmark; `whisperbench ui` prints them."""
    monkeypatch.setenv("MLFLOW_PORT", "5077")
    client.create_run("0", tags={"whisperbench.kind": "compare"})
    experiment = client.get_run(log(client, run_of())).info.experiment_id
    print_links(client)
    assert capsys.readouterr().out == f"speech: http://127.0.0.1:5077/{runs_path(experiment)}\n"
    assert VIEW_TAG in client.get_experiment(experiment).tags


def test_transcripts_side_by_side_open_on_the_runs_that_are_meant(user_interface: str) -> None:
    """Children of a sweep too: only in the order of time does MLflow fold them into their parent."""
    runs = [run_of(), run_of()]
    address = Links("http://s").transcripts(runs)
    assert all(run.run_id in address for run in runs)
    assert "&orderByKey=metrics.%60wer%60&" in address
    assert re.search(r"orderByKey:(\w),searchFilter:(\w)\}\)=>!\1&&!\2\|\|\1===", user_interface)
