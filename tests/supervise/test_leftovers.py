"""Only what a dead process of this user has written down as its own is removed."""

from __future__ import annotations

import dataclasses
import subprocess
import tempfile
from collections.abc import Iterator
from multiprocessing import shared_memory
from pathlib import Path

import pytest

from tests.support import leftovers
from tests.support.leftovers import files_in, processes_in, unused_segments
from whisperbench.supervise.leftovers import (
    OWNER,
    SEGMENTS,
    SHARED_MEMORY,
    own_directory,
    remove_own,
    remove_those_of_the_dead,
)
from whisperbench.supervise.owner import Process


@pytest.fixture(autouse=True)
def own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def segment() -> Iterator[str]:
    """The name of a segment that nobody has mapped."""
    memory = shared_memory.SharedMemory(create=True, size=64)
    memory.close()
    yield memory.name
    if (SHARED_MEMORY / memory.name).exists():
        memory.unlink()


def left_by_a_dead_process(tmp_path: Path, *segments: str) -> Path:
    """As a killed one leaves it: no process of that number has started at that time."""
    here = Process.this()
    assert here is not None
    directory = tmp_path / "whisperbench-1-2"
    directory.mkdir()
    (directory / OWNER).write_text(str(dataclasses.replace(here, started=here.started + 1)))
    (directory / SEGMENTS).write_text("\n".join(segments))
    return directory


def test_segments_of_the_dead(tmp_path: Path, segment: str) -> None:
    """With the directory that names them."""
    directory = left_by_a_dead_process(tmp_path, segment)
    remove_those_of_the_dead()
    assert not directory.exists()
    assert not (SHARED_MEMORY / segment).exists()


def test_segments_that_somebody_has_mapped(tmp_path: Path) -> None:
    """Stay: an engine may live on for a moment."""
    memory = shared_memory.SharedMemory(create=True, size=64)
    left_by_a_dead_process(tmp_path, memory.name)
    remove_those_of_the_dead()
    assert (SHARED_MEMORY / memory.name).exists()
    memory.close()
    memory.unlink()


def test_those_of_the_living(tmp_path: Path, segment: str) -> None:
    """Stay, and so does what names no owner."""
    directory = own_directory()
    assert directory is not None
    (directory / SEGMENTS).write_text(segment)
    nobodys = tmp_path / "whisperbench-3-4"
    nobodys.mkdir()
    (nobodys / SEGMENTS).write_text(segment)
    remove_those_of_the_dead()
    assert directory.exists()
    assert nobodys.exists()
    assert (SHARED_MEMORY / segment).exists()
    remove_own()
    assert directory.exists(), "its segment is left: somebody has to know whose it is"


def test_a_note_that_names_something_else(tmp_path: Path) -> None:
    """Removes nothing: only what looks like a segment of Python's is one."""
    file = tmp_path / "precious"
    file.touch()
    left_by_a_dead_process(tmp_path, f"../..{file}", "sem.other")
    remove_those_of_the_dead()
    assert file.exists()


def test_own_directory_goes_in_peace(tmp_path: Path) -> None:
    """Without segments nothing has to be known."""
    assert own_directory() == own_directory()
    remove_own()
    assert list(tmp_path.iterdir()) == []


class TestWhatTestsLookFor:
    """A test that leaves something fails: these are the three things that `leaves_nothing` finds."""

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert files_in(tmp_path) == []
        (tmp_path / "empty" / "socket").touch()
        assert files_in(tmp_path) == ["empty/socket"]

    def test_a_process(self, tmp_path: Path) -> None:
        """Below its own temporary directory too, and no other's."""
        with subprocess.Popen(["sleep", "60"], env={"TMPDIR": str(tmp_path / "own")}) as process:
            assert processes_in(tmp_path) == [f"{process.pid} sleep 60"]
            assert processes_in(tmp_path / "other") == []
            process.kill()

    def test_a_segment(self, segment: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Unless it was there before, or somebody uses it, or it is none of an engine's."""
        assert segment not in unused_segments(set())
        monkeypatch.setattr(leftovers, "LEAST_BYTES", 64)
        assert segment in unused_segments(set())
        assert segment not in unused_segments({segment})
        mine = shared_memory.SharedMemory(segment)
        assert segment not in unused_segments(set())
        mine.close()
