"""A result on disk: complete or absent, finished transcripts are kept, and every damaged file is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import contents_of, journal_in, result, result_in
from whisperbench.errors import BundleError, EngineError
from whisperbench.progress import Listener
from whisperbench.results.bundle import BUNDLE_FILE, Origin, read_bundle, unlogged_bundles
from whisperbench.results.recording import (
    MEASUREMENT_FILE,
    TRANSCRIPTS,
    complete,
    interrupted_measurements,
    read_journal,
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Params, metrics, histories, tags, times and origin are equal, also after the directory is renamed."""
    origin = Origin("speech", "0" * 32, {"mlflow.user": "ann"})
    written = result_in(tmp_path, contents_of(), origin)
    assert read_bundle(written.directory) == written
    moved = written.directory.rename(tmp_path / "for ann")
    assert read_bundle(moved) == dataclasses.replace(written, directory=moved)


def test_the_file_is_readable_without_mlflow(tmp_path: Path) -> None:
    """bundle.json has the schema, and everything under the names of the documentation."""
    body = json.loads((result_in(tmp_path).directory / BUNDLE_FILE).read_text(encoding="utf-8"))
    assert list(body) == ["schema", "id", "origin", "contents"]
    assert body["schema"] == "1"
    assert body["contents"]["metrics"]["wer"] == 2.5


class TestJournal:
    def test_a_transcript_is_on_disk_as_soon_as_it_is_finished(self, tmp_path: Path) -> None:
        """It does not stay in a buffer of the process; a kill in the middle of a write loses only that utterance."""
        with journal_in(tmp_path) as journal:
            assert stat.S_IMODE(journal.directory.stat().st_mode) == 0o700  # private
            journal.append(result(0))
            journal.append(result(1))
            assert read_journal(journal.directory) == (result(0), result(1))
        path = journal.directory / TRANSCRIPTS
        path.write_bytes(path.read_bytes()[:-5])
        assert read_journal(journal.directory) == (result(0),)

    def test_without_transcripts_only_the_log_of_a_failed_engine_is_kept(self, tmp_path: Path) -> None:
        """The error message points to the log."""
        with pytest.raises(KeyboardInterrupt), journal_in(tmp_path):
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(EngineError), journal_in(tmp_path) as journal:  # noqa: PT012 - raised in the middle
            (journal.artifacts / "engine.log").write_text("out of memory", encoding="utf-8")
            raise EngineError
        assert (journal.artifacts / "engine.log").exists()

    def test_a_failure_keeps_the_transcripts(self, tmp_path: Path) -> None:
        """The measurement is reported as interrupted when its process has ended, and is not a result."""
        with pytest.raises(ZeroDivisionError), journal_in(tmp_path) as journal:  # noqa: PT012 - raised in the middle
            journal.append(result(0))
            assert interrupted_measurements(tmp_path) == {}
            raise ZeroDivisionError
        assert interrupted_measurements(tmp_path) == {journal.directory: 1}
        assert unlogged_bundles(tmp_path) == []
        with pytest.raises(BundleError, match="is an unfinished measurement"):
            read_bundle(journal.directory)

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """The error names the file of the finished transcripts, which are complete; a limit replaces the disk."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        with journal_in(tmp_path) as journal:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
            try:
                with pytest.raises(BundleError, match="Finished transcripts are in"):  # noqa: PT012
                    for number in range(100):
                        journal.append(result(number))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            found = [each.utt_id for each in read_journal(journal.directory)]
        assert found == [f"u{number:04d}" for number in range(len(found))]
        assert len(found) > 10

    def test_a_directory_that_cannot_be_created(self, tmp_path: Path) -> None:
        """It is reported before the engine starts."""
        (tmp_path / "file").touch()
        with pytest.raises(BundleError, match="results_dir="):
            journal_in(tmp_path / "file" / "results")


class TestHostileBundles:
    """A bundle that other users have changed neither blocks an upload nor makes it send other files."""

    def test_links_and_deep_directories_are_refused(self, tmp_path: Path) -> None:
        """A link to a file, one instead of the directory of artifacts, and more than 3 levels."""
        bundle = result_in(tmp_path)
        (bundle.artifacts / "a" / "b" / "c" / "d").mkdir(parents=True)
        with pytest.raises(BundleError, match="more than 3 levels"):
            read_bundle(bundle.directory)
        (bundle.artifacts / "a" / "b" / "c" / "d").rmdir()
        assert read_bundle(bundle.directory) == bundle
        (bundle.artifacts / "notes.txt").symlink_to("/etc/passwd")
        with pytest.raises(BundleError, match="must not contain links"):
            read_bundle(bundle.directory)
        bundle.artifacts.rename(tmp_path / "elsewhere")
        bundle.artifacts.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(BundleError, match="not a directory"):
            read_bundle(bundle.directory)

    @pytest.mark.parametrize("name", [BUNDLE_FILE, "artifacts/samples/x", TRANSCRIPTS, MEASUREMENT_FILE])
    def test_a_fifo_is_refused(self, name: str, tmp_path: Path) -> None:
        """Neither the doctor nor an upload waits for a writer, also of an unfinished measurement."""
        directory = result_in(tmp_path).directory
        (directory / name).unlink(missing_ok=True)
        os.mkfifo(directory / name)
        if name in (TRANSCRIPTS, MEASUREMENT_FILE):
            directory = directory.rename(tmp_path / "x.partial")
            interrupted_measurements(tmp_path)
        with pytest.raises(BundleError, match="not a regular file"):
            complete(directory, Listener()) if directory.suffix else read_bundle(directory)

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("schema",), "2"),
            (("id",), "../../etc"),
            (("origin", "run_id"), "../1"),
            (("contents", "metrics"), {"wer": float("nan")}),
            (("contents", "metrics"), {"wer": -5.0}),
            (("contents", "metrics"), {"wer": 1e299}),
            (("contents", "metrics"), {"a/../../b": 5.0}),
            (("contents", "metrics"), {"reqs_per_sec": 0.0}),
            (("contents", "history"), {"rtfx": [1.0, -1.0]}),
            (("contents", "ended_ms"), 1),
            (("contents", "started_ms"), -1),
            (("contents", "dataset"), None),
        ],
    )
    def test_a_value_that_is_not_allowed(self, tmp_path: Path, path: tuple[str, ...], value: Any) -> None:
        """Refused with the bundle's path, before anything is sent."""
        bundle = result_in(tmp_path)
        body = json.loads((bundle.directory / BUNDLE_FILE).read_text())
        place = body
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value
        (bundle.directory / BUNDLE_FILE).write_text(json.dumps(body))
        with pytest.raises(BundleError, match=str(bundle.directory)):
            read_bundle(bundle.directory)
