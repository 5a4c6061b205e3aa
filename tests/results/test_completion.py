"""A result that could not be written after its clock had stopped is completed from its journal."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import CONFIG, transcript
from tests.support.fakes import NO_GPU, FakeEngine
from whisperbench import benchmark
from whisperbench.errors import BundleError
from whisperbench.listener import Listener
from whisperbench.options import BenchmarkConfig
from whisperbench.results.bundle import CONTENTS, Bundle, Origin, read_bundle
from whisperbench.results.completion import complete
from whisperbench.results.journal import CLOCK, TRANSCRIPTS, Journal
from whisperbench.tracking.upload import find_bundles


def measured(results: Path) -> Bundle:
    config = BenchmarkConfig(model="demo", corpus="demo", repeats=2, results_dir=str(results))
    origin = Origin("speech", "a" * 32, {"mlflow.user": "ann"})
    return benchmark.measure_to_disk(config, NO_GPU, origin, Listener(), FakeEngine)


@pytest.fixture(scope="module")
def left_by_a_full_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a disk leaves that is full when the samples are written."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    results = tmp_path_factory.mktemp("measured") / "full"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(benchmark, "write_samples", refuse)
        with pytest.raises(BundleError, match=r"Then complete the result: mlflow run \. -e upload -P bundles="):
            measured(results)
    (left,) = results.iterdir()
    assert not (left / CONTENTS).exists()
    return left


@pytest.fixture
def partial(left_by_a_full_disk: Path, tmp_path: Path) -> Path:
    """A copy of it, for the test to change."""
    return shutil.copytree(left_by_a_full_disk, tmp_path / "full" / left_by_a_full_disk.name)


def test_it_holds_what_the_measurement_would_have_written(
    partial: Path, left_by_a_full_disk: Path, tmp_path: Path
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
    assert contents.params == {**expected.contents.params, "results_dir": str(left_by_a_full_disk.parent)}
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
