"""A measurement whose result could not be written is completed from its journal."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support.bundles import journal_in, result
from tests.support.fakes import NO_GPU, FakeEngine
from whisperbench import benchmark
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.errors import BundleError, EngineError
from whisperbench.preparation import prepare
from whisperbench.progress import Listener
from whisperbench.results import bundle as bundle_module
from whisperbench.results import recording
from whisperbench.results.bundle import BUNDLE_FILE, Bundle, Origin, read_bundle
from whisperbench.results.names import WARNINGS
from whisperbench.results.recording import MEASUREMENT_FILE, TRANSCRIPTS, complete
from whisperbench.results.transcripts import TABLE
from whisperbench.tracking.upload import find_bundles
from whisperbench.util import typed_command

WRITES = {
    "transcripts.json": (Path, "write_text", TABLE),
    "summary.md": (Path, "write_text", "summary.md"),
    "bundle.json": (bundle_module, "write_atomically", BUNDLE_FILE),
    "sync": (recording, "sync", ""),
    "rename": (Path, "rename", ".partial"),
}
"""What `finish` writes after measurement.json: the function that writes it, and the end of the first path."""


def measured(results: Path, repeats: int = 2, copies: int = 1, engine: type[FakeEngine] = FakeEngine) -> Bundle:
    config = BenchmarkConfig(
        model="demo", corpus="demo", repeats=repeats, corpus_copies=copies, results_dir=str(results)
    )
    origin = Origin("speech", "a" * 32, {"mlflow.user": "ann"})
    return benchmark.measure_to_disk(prepare(config, NO_GPU, Listener()), origin, Listener(), engine)


def no_space(*_: Any, **__: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def disk_full_at(write: str, patched: pytest.MonkeyPatch) -> None:
    """Let one of the writes fail, and those before it succeed."""
    owner, name, ending = WRITES[write]
    original = getattr(owner, name)

    def full(path: Path, *arguments: Any, **options: Any) -> Any:
        return no_space() if path.name.endswith(ending) else original(path, *arguments, **options)

    patched.setattr(owner, name, full)


@pytest.fixture
def partial(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The directory of a measurement after one of the writes has failed."""
    options = {"write": "transcripts.json", **getattr(request, "param", {})}
    with pytest.MonkeyPatch.context() as patched:
        disk_full_at(options.pop("write"), patched)
        with pytest.raises(BundleError, match=f"then complete the result: {typed_command()} upload --bundles "):
            measured(tmp_path / "full", **options)
    (found,) = (tmp_path / "full").iterdir()
    return found


def test_a_renamed_copy_is_the_same_measurement(partial: Path, tmp_path: Path) -> None:
    """An upload finds both, by their own names or that of their directory, and completes them to one id."""
    copy = shutil.copytree(partial, tmp_path / "copy of it.partial")
    assert find_bundles(str(partial.parent)) == find_bundles(str(partial)) == [partial]
    assert complete(copy, Listener()).id == complete(partial, Listener()).id


@pytest.mark.parametrize("partial", [{"write": write} for write in WRITES], indirect=True, ids=list(WRITES))
def test_an_upload_completes_it(partial: Path, tmp_path: Path) -> None:
    """With everything that the measurement would have written, except the samples; the times are the measured ones."""
    expected = measured(tmp_path / "whole")
    kept = json.loads((partial / MEASUREMENT_FILE).read_text())
    bundle = complete(partial, Listener())
    assert bundle == read_bundle(partial.with_name(partial.name.removesuffix(".partial")))
    assert bundle.origin == expected.origin
    contents = bundle.contents
    wall = max(each["wall_seconds"] for each in kept["measurement"]["passes"])
    assert contents.metrics["wall_seconds"] == pytest.approx(wall, rel=0.01)
    assert (contents.started_ms, contents.ended_ms) == (kept["started_ms"], kept["ended_ms"])
    for counted in ("wer", "cer", "wer_ci_low", "reference_words", "utterances", "audio_seconds"):
        assert contents.metrics[counted] == expected.contents.metrics[counted], counted
    assert contents.params == expected.contents.params
    assert set(contents.history) == set(expected.contents.history)
    assert hypotheses(bundle) == hypotheses(expected)
    written, whole = ({path.name for path in each.artifacts.iterdir()} for each in (bundle, expected))
    assert written == whole - {"samples"}


def hypotheses(bundle: Bundle) -> list[list[object]]:
    table = json.loads((bundle.artifacts / "transcripts.json").read_text())
    return [row[:10] for row in table["data"]]


def test_an_engine_that_cannot_be_closed(tmp_path: Path) -> None:
    """The measurement is on disk before, so an upload completes it."""

    class Stuck(FakeEngine):
        def close(self) -> None:
            raise EngineError("The engine does not end.")

    with pytest.raises(EngineError, match="does not end"):
        measured(tmp_path, repeats=1, engine=Stuck)
    (partial,) = tmp_path.iterdir()
    assert complete(partial, Listener()).contents.metrics["utterances"] == 8


def test_samples_and_plots_are_best_effort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error is a warning in the run, and the result is complete without them."""

    def half(directory: Path, *_: Any) -> None:
        directory.mkdir()
        (directory / "half").touch()
        no_space()

    monkeypatch.setattr(recording, "write_samples", half)
    bundle = measured(tmp_path)
    warning = "samples/ could not be written (OSError: [Errno 28] No space left on device)"
    assert warning in bundle.contents.tags[WARNINGS]
    assert bundle == read_bundle(bundle.directory)
    assert not (bundle.artifacts / "samples").exists()


@pytest.mark.parametrize("partial", [{"repeats": 1, "copies": 2}], indirect=True)
def test_copies_and_an_invalid_pass(partial: Path, tmp_path: Path) -> None:
    """The first copy is scored, all of them must be there, and an invalid pass has no speed."""
    lines = (partial / TRANSCRIPTS).read_bytes().splitlines(keepends=True)
    whole = shutil.copytree(partial, tmp_path / partial.name)
    (partial / TRANSCRIPTS).write_bytes(b"".join(lines[:-1]))
    with pytest.raises(BundleError, match="lacks 1 of 16 transcripts"):
        complete(partial, Listener())
    kept = json.loads((whole / MEASUREMENT_FILE).read_text())
    kept["measurement"]["passes"][0]["invalid"] = "1 engine(s) failed: engine 1"
    (whole / MEASUREMENT_FILE).write_text(json.dumps(kept))
    contents = complete(whole, Listener()).contents
    assert contents.metrics["reference_words"] == 87
    assert contents.metrics["utterances"] == 16
    assert "reqs_per_sec" not in contents.metrics
    assert "engine 1" in contents.tags[WARNINGS]


def test_a_damaged_measurement(partial: Path) -> None:
    """It is refused with one sentence, so that an upload of several results continues."""
    text = (partial / MEASUREMENT_FILE).read_text()
    for damaged, reason in ((text.replace('"auto"', '"float4"', 1), "'float4' is not allowed"), ("{", "EOF")):
        (partial / MEASUREMENT_FILE).write_text(damaged)
        with pytest.raises(BundleError, match=f"was not measured to its end .*{reason}"):
            complete(partial, Listener())


def test_artifacts_that_lead_elsewhere(partial: Path, tmp_path: Path) -> None:
    """Files are neither written to the target of a link nor sent from there."""
    shutil.move(partial / "artifacts", tmp_path / "elsewhere")
    (partial / "artifacts").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="not a directory"):
        complete(partial, Listener())


def test_one_that_is_being_measured(tmp_path: Path) -> None:
    """It is not completed, whichever host its process is on."""
    with journal_in(tmp_path) as journal:
        journal.append(result(0))
        with pytest.raises(BundleError, match="is being measured or logged by another process"):
            complete(journal.directory, Listener())
    with pytest.raises(BundleError, match="was not measured to its end"):
        complete(journal.directory, Listener())
