"""A result that could not be written after its clock had stopped is completed from its journal."""

from __future__ import annotations

import errno
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import CONFIG, transcript
from tests.support.fakes import NO_GPU, FakeEngine
from whisperbench import benchmark
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.errors import BundleError
from whisperbench.progress import Listener
from whisperbench.results.bundle import CONTENTS, Bundle, Origin, read_bundle
from whisperbench.results.names import WARNINGS
from whisperbench.results.recording import CLOCK, TRANSCRIPTS, Journal, complete
from whisperbench.tracking.upload import find_bundles


def measured(results: Path, repeats: int = 2, rounds: int = 1) -> Bundle:
    config = BenchmarkConfig(
        model="demo", corpus="demo", repeats=repeats, corpus_copies=rounds, results_dir=str(results)
    )
    origin = Origin("speech", "a" * 32, {"mlflow.user": "ann"})
    return benchmark.measure_to_disk(config, NO_GPU, origin, Listener(), FakeEngine)


@pytest.fixture(scope="module")
def left_by_a_full_disk(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """What a disk leaves that is full when the samples are written; measured once for each number of repeats."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    @functools.cache
    def left(repeats: int = 2, rounds: int = 1) -> Path:
        results = tmp_path_factory.mktemp("measured") / "full"
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(benchmark, "write_samples", refuse)
            with pytest.raises(BundleError, match=r"Then complete the result: mlflow run \. -e upload -P bundles="):
                measured(results, repeats, rounds)
        (found,) = results.iterdir()
        assert not (found / CONTENTS).exists()
        return found

    return left


@pytest.fixture
def partial(request: pytest.FixtureRequest, left_by_a_full_disk: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of it, for the test to change; of two repeats, or as a test says."""
    left = left_by_a_full_disk(**getattr(request, "param", {}))
    return shutil.copytree(left, tmp_path / "full" / left.name)


def test_it_holds_what_the_measurement_would_have_written(
    partial: Path, left_by_a_full_disk: Callable[..., Path], tmp_path: Path
) -> None:
    """Everything but the samples, and the times that were measured then."""
    expected = measured(tmp_path / "whole")
    stopped = json.loads((partial / CLOCK).read_text())
    bundle = complete(partial)
    assert bundle == read_bundle(partial.with_name(partial.name.removesuffix(".partial")))
    assert bundle.origin == expected.origin
    contents = bundle.contents
    assert contents.metrics["wall_seconds"] in [each["wall_seconds"] for each in stopped["passes"]]
    assert (contents.started_ms, contents.ended_ms) == (stopped["started_ms"], stopped["ended_ms"])
    for counted in ("wer", "cer", "wer_ci_low", "wer_ci_high", "reference_words", "utterances", "audio_seconds"):
        assert contents.metrics[counted] == expected.contents.metrics[counted], counted
    assert contents.params == {**expected.contents.params, "results_dir": str(left_by_a_full_disk().parent)}
    assert set(contents.history) == set(expected.contents.history)
    table = "transcripts.json"
    assert (bundle.artifacts / table).read_text() == (expected.artifacts / table).read_text()
    written = {path.name for path in bundle.artifacts.iterdir()}
    assert written >= {table, "summary.md", "environment.txt", "engine.log"}


def test_an_upload_finds_it(partial: Path) -> None:
    """By its own name, or that of the directory that it is in."""
    assert find_bundles(str(partial)).partial == (partial,)
    assert find_bundles(str(partial.parent)).partial == (partial,)


def test_a_transcript_that_is_missing(partial: Path) -> None:
    """Is not made up, and not passed over."""
    lines = (partial / TRANSCRIPTS).read_bytes().splitlines(keepends=True)
    (partial / TRANSCRIPTS).write_bytes(b"".join(lines[:-1]))
    with pytest.raises(BundleError, match="lacks 1 of 16 transcripts"):
        complete(partial)


@pytest.mark.parametrize("partial", [{"repeats": 1, "rounds": 2}], indirect=True)
def test_rounds_and_what_engines_shared(partial: Path, tmp_path: Path) -> None:
    """The first round is scored, all of them are missed, and a pass that lost an engine has no speed."""
    lines = (partial / TRANSCRIPTS).read_bytes().splitlines(keepends=True)
    whole = shutil.copytree(partial, tmp_path / partial.name)
    (partial / TRANSCRIPTS).write_bytes(b"".join(lines[:-1]))
    with pytest.raises(BundleError, match="lacks 1 of 16 transcripts"):
        complete(partial)
    stopped = json.loads((whole / CLOCK).read_text())
    lost = {"audio_seconds": [9.0], "finished_seconds": [4.0], "cpu_seconds": 1.0, "failed": ["engine 1"]}
    (pass_,) = stopped["passes"]
    (whole / CLOCK).write_text(json.dumps(stopped | {"passes": [pass_ | {"fleet": lost}]}))
    contents = complete(whole).contents
    assert contents.metrics["reference_words"] == 87
    assert contents.metrics["utterances"] == 16
    assert "reqs_per_sec" not in contents.metrics
    assert "engine 1" in contents.tags[WARNINGS]


def test_options_of_another_version(partial: Path) -> None:
    """One sentence, so that an upload of many goes on."""
    facts = json.loads((partial / "journal.json").read_text())
    facts["params"]["dtype"] = "float4"
    (partial / "journal.json").write_text(json.dumps(facts))
    with pytest.raises(BundleError, match="dtype='float4'"):
        complete(partial)


def test_artifacts_that_lead_elsewhere(partial: Path, tmp_path: Path) -> None:
    """Nothing is written there, and nothing of it is sent."""
    shutil.move(partial / "artifacts", tmp_path / "elsewhere")
    (partial / "artifacts").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="not a directory"):
        complete(partial)


def test_one_that_is_being_measured(tmp_path: Path) -> None:
    """Is left alone, whichever host its process is on."""
    with Journal(tmp_path, CONFIG.digest, CONFIG.as_params(), Origin()) as journal:
        journal.append(0, transcript(0))
        with pytest.raises(BundleError, match="is being measured by another process"):
            complete(journal.directory)
    with pytest.raises(BundleError, match="was not measured to its end"):
        complete(journal.directory)
