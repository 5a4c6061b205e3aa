"""Bad input to the benchmark command ends as one sentence and a FAILED run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from tests.support import fake_benchmark
from tests.support.commands import invoke
from tests.support.fakes import FakeEngine
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Transcription
from whisperbench.results.names import FAILURE

pytestmark = pytest.mark.usefixtures("no_project_run")


def folder(path: Path, transcript: str, cut: int | None = None) -> Path:
    """An audio folder with one clip of a second, of which `cut` bytes are left."""
    path.mkdir()
    soundfile.write(path / "a.flac", np.random.default_rng(1).uniform(-0.1, 0.1, 16_000), 16_000)
    (path / "a.flac").write_bytes((path / "a.flac").read_bytes()[:cut])
    (path / "t.trans.txt").write_text(f"a {transcript}\n")
    return path


BAD: dict[str, tuple[Callable[[Path], dict[str, object]], str]] = {
    "an unknown model": (lambda _: {"model": "large-v33"}, "large-v3"),
    "a file that is cut short": (lambda p: {"corpus": folder(p / "c", "HELLO", cut=9_000)}, "a.flac"),
    "a reference of 5,000 digits": (lambda p: {"corpus": folder(p / "c", "9" * 5_000)}, "cannot be normalised"),
    "fp8 on a CPU": (lambda _: {"kv_cache_dtype": "fp8"}, "kv_cache_dtype=auto"),
    "a directory that cannot be written": (lambda _: {"results_dir": "/proc/results"}, "Choose another directory"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_leaves_no_run(case: str, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One message without a traceback names what is wrong; the status is that of wrong usage."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    options, named = BAD[case]
    given = {"model": "demo", "corpus": "demo", "results_dir": tmp_path / "results", **options(tmp_path)}
    result = invoke("benchmark", **given)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("error: ") == 1
    assert named in result.stderr.partition("error: ")[2]
    assert "Traceback" not in result.output
    assert client.search_runs(["0"]) == []


def test_a_corpus_that_changes_during_the_measurement_ends_as_a_failed_run(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digest is that of other audio, so no result is written."""
    corpus = folder(tmp_path / "c", "HELLO")
    other = folder(tmp_path / "other", "HELLO") / "a.flac"
    transcribe = FakeEngine.transcribe

    def replacing(self: FakeEngine, utterances: Iterable[Utterance]) -> Iterator[Transcription]:
        yield from transcribe(self, utterances)
        (corpus / "a.flac").write_bytes(other.read_bytes())

    monkeypatch.setattr(FakeEngine, "transcribe", replacing)
    arguments = ["--model", "demo", "--corpus", str(corpus), "--results_dir", str(tmp_path / "results")]
    result = CliRunner().invoke(fake_benchmark.main, arguments)
    assert re.search(r"1 of 1 files with audio changed after they were checked.*a\.flac", result.stderr, re.DOTALL)
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FAILED"
    assert "wer" not in run.data.metrics
    assert not list((tmp_path / "results").rglob("measurement.json"))


def test_a_run_that_exists_records_the_mistake(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mlflow run` and a sweep create the run before the program starts; its description is in the past tense."""
    run_id = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    result = invoke("benchmark", model="large-v33", corpus="demo", results_dir=tmp_path)
    assert result.exit_code == 2, result.output
    run = client.get_run(run_id)
    assert run.info.status == "FAILED"
    assert "large-v33" in run.data.tags[FAILURE]
    assert run.data.tags["mlflow.note.content"].startswith("**The run failed.**\n\n    model='large-v33'")
    assert "is running" not in run.data.tags["mlflow.note.content"]


def test_a_server_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is short, has the system's reason, and names the way to measure without a server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    result = invoke("benchmark", model="demo", corpus="demo", results_dir=tmp_path)
    assert result.exit_code == 3
    assert result.stderr == (
        "error: The tracking server http://127.0.0.1:9 failed to answer (Connection refused). "
        "Check MLFLOW_TRACKING_URI and the server. To measure without it, use offline=true, and log the result "
        "later.\n"
    )
