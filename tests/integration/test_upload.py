"""An upload gives the run that logging at once would have given, exactly once."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.support.bundles import contents_of, held_by, result_in
from tests.support.commands import invoke
from tests.support.servers import Server
from tests.support.stores import all_runs, fresh_store
from whisperbench.errors import BundleError
from whisperbench.results.bundle import BUNDLE_FILE, Origin, read_bundle, unlogged_bundles
from whisperbench.tracking import runs as tracking
from whisperbench.tracking.client import connect
from whisperbench.tracking.experiment_page import VIEW_TAG
from whisperbench.tracking.runs import BUNDLE_TAG
from whisperbench.tracking.upload import upload_bundle

pytestmark = pytest.mark.usefixtures("no_project_run")


def run_flow(bundles: Path | str) -> Result:
    return invoke("upload", bundles=bundles)


def runs_of(client: Any, bundle_id: str) -> list[Any]:
    return all_runs(client, f"tags.`{BUNDLE_TAG}` = '{bundle_id}'")


def test_uploading_gives_what_logging_gives(tracking_server: Server, tmp_path: Path, empty_store: Path) -> None:
    """On a real server: params, metrics with their histories, tags, data sets and artifacts byte by byte."""
    client = connect(tracking_server.address)
    tags = {"whisperbench.kind": "benchmark"}
    direct = tracking.open_run(client, experiment="upload", run_id=None, name="demo-auto-128", tags=tags)
    bundle = result_in(tmp_path / "results", origin=tracking.origin_of(client, direct))
    tracking.log_bundle(client, direct, bundle)
    tracking.close_run(client, direct, "FINISHED")
    at_once = held_by(client, direct, tmp_path / "direct")

    other_server = tmp_path / "elsewhere"  # the run is not there: the bundle is all that is known
    other_server.mkdir()
    later_client = connect(fresh_store(other_server, empty_store))
    later_client.create_experiment("upload", str(other_server / "artifacts"))
    run_id, was_missing = upload_bundle(later_client, read_bundle(bundle.directory))
    assert was_missing
    assert held_by(later_client, run_id, tmp_path / "later") == at_once


def test_a_whole_directory(client: Any, tmp_path: Path) -> None:
    """Every bundle in it once; an incomplete measurement is named."""
    results = tmp_path / "results"
    bundles = [result_in(results, contents_of(wer=float(i))) for i in range(3)]
    (results / "20261122T101500-ab.partial").mkdir()
    (results / "leaderboard.md").touch()
    assert len(unlogged_bundles(results)) == 3
    done = run_flow(results / "*")
    assert done.exit_code == 0, done.stderr
    assert [line.count("logged to") for line in done.stdout.splitlines()] == [1, 1, 1]
    assert "which cannot be completed" in done.stderr
    assert sorted(runs_of(client, b.id)[0].data.metrics["wer"] for b in bundles) == [0.0, 1.0, 2.0]
    assert unlogged_bundles(results) == []


def test_a_new_run_is_as_if_it_had_been_logged_at_once(client: Any, tmp_path: Path) -> None:
    """The experiment, which is created with its view, and the run have the names that the bundle holds."""
    origin = Origin(experiment="away", tags={"mlflow.runName": "my run"})
    bundle = result_in(tmp_path / "results", origin=origin)
    assert run_flow(bundle.directory).exit_code == 0
    experiment = client.get_experiment_by_name("away")
    assert {VIEW_TAG, "mlflow.note.content"} <= experiment.tags.keys()
    (run,) = runs_of(client, bundle.id)
    assert (run.info.run_name, run.info.experiment_id) == ("my run", experiment.experiment_id)


def test_a_copy_is_not_another_result(client: Any, tmp_path: Path) -> None:
    """An upload of a copied directory finds the run of the original."""
    bundle = result_in(tmp_path / "results")
    shutil.copytree(bundle.directory, tmp_path / "copy")
    assert run_flow(bundle.directory).exit_code == 0
    assert "is already in run" in run_flow(tmp_path / "copy").stdout
    assert len(runs_of(client, bundle.id)) == 1


def test_two_uploads_at_once(tracking_server: Server, tmp_path: Path) -> None:
    """One logs the result, the other is refused or finds it logged; the server has one run."""
    bundle = result_in(tmp_path / "results", origin=Origin("two uploads"))
    clients = [connect(tracking_server.address) for _ in range(2)]
    refused = []

    def work(client: Any) -> None:
        try:
            upload_bundle(client, read_bundle(bundle.directory))
        except BundleError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("is being measured or logged by another process" in text for text in refused)
    assert len(runs_of(clients[0], bundle.id)) == 1


@pytest.mark.parametrize("which", ["of another user", "in MLFLOW_RUN_ID", "deleted"])
def test_another_run_is_not_changed(which: str, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle may name any run as its origin, but an upload changes only a run that is there and has its tag."""
    other = client.create_run("0", run_name="theirs", tags={"mlflow.note.content": "mine"}).info.run_id
    bundle = result_in(tmp_path / "results", origin=Origin("whisperbench", other))
    if which == "in MLFLOW_RUN_ID":
        monkeypatch.setenv("MLFLOW_RUN_ID", other)
    if which == "deleted":
        client.set_tag(other, BUNDLE_TAG, bundle.id)
        client.delete_run(other)
    before = held_by(client, other, tmp_path / "before")
    assert run_flow(bundle.directory).exit_code == 0
    assert held_by(client, other, tmp_path / "after") == before
    assert [run.info.run_id for run in runs_of(client, bundle.id)] != [other]


def test_a_changed_copy_does_not_change_the_run(client: Any, tmp_path: Path) -> None:
    """It has the id of the logged bundle, and other values."""
    bundle = result_in(tmp_path / "results")
    assert run_flow(bundle.directory).exit_code == 0
    (run,) = runs_of(client, bundle.id)
    before = held_by(client, run.info.run_id, tmp_path / "before")
    (bundle.directory / BUNDLE_FILE).write_text(
        (bundle.directory / BUNDLE_FILE).read_text().replace('"wer": 2.5', '"wer": 1.0')
    )
    refused = run_flow(bundle.directory)
    assert refused.exit_code == 3
    assert "holds other values" in refused.stderr
    assert held_by(client, run.info.run_id, tmp_path / "after") == before


class TestErrors:
    @pytest.mark.parametrize("name", [".", "absent", "a" * 5_000])
    def test_no_bundle(self, name: str, tmp_path: Path) -> None:
        """The error names what was searched, also a path that no file can have."""
        result = run_flow(tmp_path / name)
        assert result.exit_code == 1
        assert "does not match a result bundle" in result.stderr

    def test_a_damaged_bundle_does_not_affect_others(self, client: Any, tmp_path: Path) -> None:
        """All others are logged; the status is 1, and the message names each damaged one."""
        results = tmp_path / "results"
        bad, good, refused = (result_in(results) for _ in range(3))
        (bad.directory / BUNDLE_FILE).write_text("{")
        body = json.loads((refused.directory / BUNDLE_FILE).read_text())
        body["contents"]["metrics"]["wer"] = -5
        (refused.directory / BUNDLE_FILE).write_text(json.dumps(body))
        done = run_flow(results)
        assert done.exit_code == 1
        assert len(runs_of(client, good.id)) == 1
        assert runs_of(client, refused.id) == []
        assert str(bad.directory) in done.stderr
        assert "wer=-5, which is impossible" in done.stderr
        assert "1 of 3 results are logged" in done.stderr

    def test_a_bundle_that_the_server_refuses_does_not_affect_others(self, client: Any, tmp_path: Path) -> None:
        """The status is 3, and the rest is logged."""
        results = tmp_path / "results"
        bundles = [result_in(results, contents_of(params={"x" * size: "y"})) for size in (300, 3)]
        done = run_flow(results)
        assert (done.exit_code, "failed to log batch" in done.stderr) == (3, True)
        assert runs_of(client, bundles[1].id)[0].info.status == "FINISHED"
