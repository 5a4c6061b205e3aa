"""A server that answers too slowly or does not keep what it accepts, and a store that several processes create."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bundles import held_by, result_in
from tests.support.commands import python_path
from tests.support.servers import Proxy, Server
from whisperbench.errors import TrackingError
from whisperbench.results.bundle import read_bundle
from whisperbench.results.names import FAILURE
from whisperbench.tracking import client as tracking_client
from whisperbench.tracking import runs as tracking
from whisperbench.tracking.client import connect
from whisperbench.tracking.runs import BUNDLE_TAG
from whisperbench.tracking.tracked_run import tracked_run
from whisperbench.tracking.upload import upload_bundle

pytestmark = pytest.mark.usefixtures("no_project_run")


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
                proxy.swallows = b"PUT "
                tracking.log_bundle(client, run.run_id, bundle)
        found = client.get_run(run.run_id)
        assert found.info.status == "FAILED"
        assert "part(s) of" in found.data.tags[FAILURE]
        with pytest.raises(TrackingError, match=r"lacks \d part\(s\)"):
            upload_bundle(client, bundle)
        proxy.swallows = None
        assert upload_bundle(client, bundle) == (run.run_id, True)
        assert upload_bundle(client, bundle) == (run.run_id, False)
    client = connect(tracking_server.address)
    held = held_by(client, run.run_id, tmp_path / "found")
    assert {"environment.txt", "transcripts.json", "samples/samples.html"} <= set(held["artifacts"])
    assert FAILURE not in held["tags"]


def test_three_processes_create_a_store(tmp_path: Path) -> None:
    """MLflow alone lets processes corrupt each other's tables."""
    address = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    program = f"from whisperbench.tracking.client import connect; connect({address!r}).search_experiments()"
    several = [
        subprocess.Popen([sys.executable, "-c", program], env=python_path(), stderr=subprocess.PIPE) for _ in range(3)
    ]
    said = [process.communicate(timeout=300)[1].decode() for process in several]
    assert [process.returncode for process in several] == [0, 0, 0], "\n".join(said)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["mlflow.db"]
