"""A result on disk: complete or absent, what was finished is kept, and no file makes the reader crash."""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import contents_of, journal_in, result, result_in
from tests.unit.results.test_run_data import FACTS, timed
from whisperbench.errors import BundleError, EngineError
from whisperbench.measure.timing import Measurement
from whisperbench.progress import Listener
from whisperbench.results.bundle import BUNDLE_FILE, Origin, read_bundle, unlogged_bundles
from whisperbench.results.recording import (
    JOURNAL_FILE,
    MEASUREMENT_FILE,
    TRANSCRIPTS,
    complete,
    interrupted_measurements,
    read_journal,
    write_bundle,
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Params, metrics, histories, tags, times and origin come back as they were."""
    origin = Origin("speech", "0" * 32, {"mlflow.user": "ann"})
    written = result_in(tmp_path, contents_of(), origin)
    assert read_bundle(written.directory) == written


def test_a_renamed_bundle_is_the_same_bundle(tmp_path: Path) -> None:
    """Its id is inside: a copy under another name is not another result."""
    written = result_in(tmp_path)
    moved = written.directory.rename(tmp_path / "for ann")
    assert read_bundle(moved).id == written.id


def test_it_reads_without_mlflow(tmp_path: Path) -> None:
    """bundle.json says its schema and holds everything under names that people know."""
    body = json.loads((result_in(tmp_path).directory / BUNDLE_FILE).read_text(encoding="utf-8"))
    assert body["schema"] == "1"
    assert body["contents"]["metrics"]["wer"] == 2.5


def test_it_is_private(tmp_path: Path) -> None:
    """Nobody else on the machine reads it, neither while it grows nor afterwards."""
    with journal_in(tmp_path) as journal:
        journal.append(result(0))
        assert stat.S_IMODE(journal.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(result_in(tmp_path).directory.stat().st_mode) == 0o700


class TestJournal:
    def test_a_transcript_is_on_disk_as_soon_as_it_is_finished(self, tmp_path: Path) -> None:
        """Nothing waits in a buffer of the process."""
        with journal_in(tmp_path) as journal:
            for number in range(3):
                journal.append(result(number))
                assert len(read_journal(journal.directory)) == number + 1

    def test_a_line_that_was_being_written_does_not_count(self, tmp_path: Path) -> None:
        """A kill in the middle of a write loses that utterance and no other."""
        with journal_in(tmp_path) as journal:
            journal.append(result(0))
            journal.append(result(1))
        path = journal.directory / TRANSCRIPTS
        path.write_bytes(path.read_bytes()[:-5])
        assert read_journal(journal.directory) == (result(0),)

    def test_nothing_finished_leaves_nothing(self, tmp_path: Path) -> None:
        """A measurement that ends before its first utterance leaves no directory."""
        with pytest.raises(KeyboardInterrupt), journal_in(tmp_path):
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []

    def test_the_log_of_an_engine_that_failed_is_kept(self, tmp_path: Path) -> None:
        """The error message points to it."""
        with pytest.raises(EngineError), journal_in(tmp_path) as journal:  # noqa: PT012 - raised in the middle of what follows
            (journal.artifacts / "engine.log").write_text("out of memory", encoding="utf-8")
            raise EngineError
        assert (journal.artifacts / "engine.log").exists()

    def test_a_failure_after_the_clock_keeps_transcripts(self, tmp_path: Path) -> None:
        """What goes wrong while scoring costs no transcript, and no result appears."""
        with pytest.raises(ZeroDivisionError), journal_in(tmp_path) as journal:  # noqa: PT012 - raised in the middle of what follows
            journal.append(result(0))
            raise ZeroDivisionError
        assert [each.utt_id for each in read_journal(journal.directory)] == ["u0000"]
        assert unlogged_bundles(tmp_path) == []
        with pytest.raises(BundleError, match="is an unfinished measurement"):
            read_bundle(journal.directory)

    def test_only_dead_processes_have_abandoned_theirs(self, tmp_path: Path) -> None:
        """A journal that this process is writing is nobody's to report."""
        with journal_in(tmp_path) as journal:
            journal.append(result(0))
            assert interrupted_measurements(tmp_path) == {}
        facts = json.loads((journal.directory / "journal.json").read_text())
        facts["process"] = facts["process"].replace(f"pid={os.getpid()}|", "pid=4194399|")
        (journal.directory / "journal.json").write_text(json.dumps(facts))
        assert interrupted_measurements(tmp_path) == {journal.directory: 1}


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to let any file of this process grow beyond `size` bytes, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestFullDisk:
    def test_while_transcripts_come(self, tmp_path: Path) -> None:
        """The error says where the finished ones are, and they are there."""
        with journal_in(tmp_path) as journal:
            with files_of_at_most(4096), pytest.raises(BundleError, match="Finished transcripts are in"):  # noqa: PT012 - raised in the middle of what follows
                for number in range(100):
                    journal.append(result(number))
            found = [each.utt_id for each in read_journal(journal.directory)]
        assert found == [f"u{number:04d}" for number in range(len(found))]
        assert len(found) > 10

    def test_while_the_result_is_written(self, tmp_path: Path) -> None:
        """No half bundle: it is absent, and its transcripts are kept."""
        with journal_in(tmp_path) as journal:
            journal.append(result(0))
            with files_of_at_most(500), pytest.raises(OSError, match="File too large"):
                write_bundle(journal.directory, journal.id, contents_of(), Origin())
        assert unlogged_bundles(tmp_path) == []
        assert not (journal.directory / BUNDLE_FILE).exists()
        assert len(read_journal(journal.directory)) == 1

    @pytest.mark.parametrize("at", ["append", "measured"])
    def test_a_directory_that_is_removed(self, at: str, tmp_path: Path) -> None:
        """A result without its transcripts is none: it is said as soon as it is noticed."""
        journal = journal_in(tmp_path)
        journal.append(result(0))
        shutil.rmtree(tmp_path)
        journal.artifacts.mkdir(parents=True)  # as the engine's log brings it back
        with pytest.raises(BundleError, match="was removed during the measurement"), journal:  # noqa: PT012
            measurement = Measurement(0.1, (timed(1.0),))
            journal.append(result(1)) if at == "append" else journal.measured(measurement, FACTS, 1, 2)

    def test_a_directory_that_cannot_be_made(self, tmp_path: Path) -> None:
        """Said before the engine starts."""
        (tmp_path / "file").touch()
        with pytest.raises(BundleError, match="results_dir="):
            journal_in(tmp_path / "file" / "results")


class TestHostileBundles:
    def test_links_are_refused(self, tmp_path: Path) -> None:
        """A bundle that has travelled cannot make an upload send another file of this machine."""
        bundle = result_in(tmp_path)
        (bundle.artifacts / "notes.txt").symlink_to("/etc/passwd")
        with pytest.raises(BundleError, match="must not contain links"):
            read_bundle(bundle.directory)

    def test_a_linked_directory_is_refused(self, tmp_path: Path) -> None:
        """Nor a whole directory."""
        bundle = result_in(tmp_path)
        bundle.artifacts.rename(tmp_path / "elsewhere")
        bundle.artifacts.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(BundleError, match="not a directory"):
            read_bundle(bundle.directory)

    @pytest.mark.parametrize("name", [BUNDLE_FILE, "artifacts/x", "artifacts/samples/x"])
    def test_a_fifo_does_not_block(self, name: str, tmp_path: Path) -> None:
        """In a directory that other users can write to, they could otherwise stop an upload."""
        directory = result_in(tmp_path).directory
        (directory / name).unlink(missing_ok=True)
        os.mkfifo(directory / name)
        with pytest.raises(BundleError, match=r"FIFO|not a regular file"):
            read_bundle(directory)

    @pytest.mark.parametrize("name", [JOURNAL_FILE, TRANSCRIPTS, MEASUREMENT_FILE])
    def test_a_fifo_in_an_unfinished_measurement(self, name: str, tmp_path: Path) -> None:
        """Neither the start of a benchmark nor an upload waits for it."""
        partial = tmp_path / "x.partial"
        partial.mkdir()
        header = {"schema": "1", "id": "x", "process": "", "run_id": None, "params": {}}
        (partial / JOURNAL_FILE).write_text(json.dumps(header))
        (partial / TRANSCRIPTS).touch()
        (partial / name).unlink(missing_ok=True)
        os.mkfifo(partial / name)
        assert interrupted_measurements(tmp_path) == {}
        with pytest.raises(BundleError, match="FIFO"):
            complete(partial, Listener())

    def test_deep_directories(self, tmp_path: Path) -> None:
        """2,000 levels exceed Python's recursion limit."""
        bundle, here = result_in(tmp_path), os.open(".", os.O_RDONLY)
        try:
            os.chdir(bundle.artifacts)
            for _ in range(2000):
                os.mkdir("a")  # noqa: PTH102 - the whole path is too long
                os.chdir("a")
        finally:
            os.fchdir(here)
            os.close(here)
        with pytest.raises(BundleError, match="more than 3 levels"):
            read_bundle(bundle.directory)
        subprocess.run(["rm", "-r", bundle.artifacts], check=True)

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("schema",), "2"),
            (("id",), "../../etc"),
            (("id",), "x' OR 1"),
            (("origin", "run_id"), "../1"),
            (("contents", "metrics"), {"wer": float("nan")}),
            (("contents", "metrics"), {"wer": 10**400}),
            (("contents", "params"), {"model": "\ud800"}),
            (("contents", "history"), {"wer": "123"}),
            (("contents", "metrics"), {"wer": -5.0}),
            (("contents", "metrics"), {"wer": 1e299}),
            (("contents", "metrics"), {"wer": 5e-324}),
            (("contents", "metrics"), {"a/../../b": 5.0}),
            (("contents", "metrics"), {"reqs_per_sec": 0.0}),
            (("contents", "history"), {"rtfx": [1.0, -1.0]}),
            (("contents", "ended_ms"), 1),
            (("contents", "started_ms"), -1),
            (("contents", "ended_ms"), 9007199254740991),
            (("contents", "dataset"), []),
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


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A bundle to spoil, and what its bundle.json holds."""
    bundle = result_in(
        tmp_path_factory.mktemp("fuzz"), contents_of(), Origin("speech", "0" * 32, {"mlflow.user": "ann"})
    )
    return bundle.directory, json.loads((bundle.directory / BUNDLE_FILE).read_text())
