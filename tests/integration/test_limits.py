"""A server that answers too slowly, and one that does not keep what it accepts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.bundles import held_by, result_in
from tests.support.servers import Proxy, Server
from tests.support.stores import all_runs
from whisperbench.errors import TrackingError
from whisperbench.results.bundle import Origin, read_bundle
from whisperbench.results.names import FAILURE
from whisperbench.tracking import client as tracking_client
from whisperbench.tracking import runs as tracking
from whisperbench.tracking.client import call_with_timeout, connect, server_version
from whisperbench.tracking.runs import BUNDLE_TAG
from whisperbench.tracking.tracked_run import tracked_run
from whisperbench.tracking.upload import upload_bundle

pytestmark = pytest.mark.usefixtures("no_project_run")


def test_a_call_that_hangs() -> None:
    """Ends after its timeout with the address, without the password in it."""
    with pytest.raises(TrackingError, match=r"http://\*\*\*@host did not answer within 0 s"):
        call_with_timeout(0.1, lambda: time.sleep(5), "http://me:secret@host")


def test_a_server_has_a_version(tracking_server: Server) -> None:
    """It is read over HTTP."""
    version = server_version(connect(tracking_server.address))
    assert version is not None
    assert version[0].isdigit()


def test_a_call_that_raises() -> None:
    """Its own error reaches the caller, and so does a result."""
    with pytest.raises(ZeroDivisionError):
        call_with_timeout(5, lambda: 1 / 0, "http://host")
    assert call_with_timeout(5, lambda: [], "http://host") == []


def test_one_byte_at_a_time(tracking_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting, logging and closing end at their limits, and an upload completes the run."""
    for name in ("CONNECT_SECONDS", "CALL_SECONDS", "TRANSFER_SECONDS"):
        monkeypatch.setattr(tracking_client, name, 1)
    with Proxy(tracking_server.port) as proxy:
        client = connect(proxy.address)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "drips")
        with pytest.raises(TrackingError, match="did not answer within 1 s"), tracked_run(client, "demo") as run:  # noqa: PT012 - the end of the run is what is looked at
            bundle = result_in(tmp_path / "results", origin=tracking.origin_of(client, run.run_id))
            client.set_tag(run.run_id, BUNDLE_TAG, bundle.id)
            proxy.drips = True
            tracking.log_bundle(client, run.run_id, bundle)
        with pytest.raises(TrackingError, match="did not answer within 1 s"):
            connect(proxy.address)
    monkeypatch.undo()
    direct = connect(tracking_server.address)
    assert upload_bundle(direct, read_bundle(bundle.directory)) == (run.run_id, True)
    assert direct.get_run(run.run_id).info.status == "FINISHED"


def test_files_that_do_not_arrive(tracking_server: Server, tmp_path: Path) -> None:
    """A proxy answers each with a page and status 200: the run is FAILED, and an upload repairs it."""
    with Proxy(tracking_server.port) as proxy:
        client = connect(proxy.address)
        with pytest.raises(TrackingError, match=r"lacks \d part\(s\) of .*, for example the file .*"):  # noqa: PT012, SIM117 - the end of the run is what is looked at
            with tracked_run(client, "demo") as run:
                bundle = result_in(tmp_path / "results", origin=tracking.origin_of(client, run.run_id))
                client.set_tag(run.run_id, BUNDLE_TAG, bundle.id)
                proxy.swallows_files = True
                tracking.log_bundle(client, run.run_id, bundle)
        found = client.get_run(run.run_id)
        assert found.info.status == "FAILED"
        assert "part(s) of" in found.data.tags[FAILURE]
        with pytest.raises(TrackingError, match=r"lacks \d part\(s\)"):
            upload_bundle(client, bundle)
        proxy.swallows_files = False
        assert upload_bundle(client, bundle) == (run.run_id, True)
        assert upload_bundle(client, bundle) == (run.run_id, False)
    client = connect(tracking_server.address)
    held = held_by(client, run.run_id, tmp_path / "found")
    assert {"environment.txt", "transcripts.json", "samples/samples.html"} <= set(held["artifacts"])
    assert FAILURE not in held["tags"]


def test_a_finished_run_that_lacks_a_file(tracking_server: Server, tmp_path: Path) -> None:
    """The upload compares the files of the run with those of the bundle, and logs it again."""
    client = connect(tracking_server.address)
    bundle = result_in(tmp_path, origin=Origin("lacks"))
    run_id, _ = upload_bundle(client, bundle)
    (file,) = tracking_server.served.rglob(f"{run_id}/artifacts/transcripts.json")
    file.write_text("<html>")
    assert upload_bundle(client, bundle) == (run_id, True)
    assert file.read_bytes() == (bundle.artifacts / "transcripts.json").read_bytes()
    assert len(all_runs(client, f"tags.`{BUNDLE_TAG}` = '{bundle.id}'")) == 1
