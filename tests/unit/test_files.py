"""Files in directories that other users can write to: only regular files of this user are opened, without waiting."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from whisperbench import files
from whisperbench.files import open_regular, read_own, write_text


def make(kind: str, path: Path) -> None:
    """A special file at `path`, or a link to a regular one."""
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "a directory":
        path.mkdir()
    else:
        (path.parent / "target").write_text("secret")
        path.symlink_to(path.parent / "target")


@pytest.mark.parametrize("kind", ["a FIFO", "a socket", "a directory", "a link"])
def test_only_regular_files_are_read_and_written(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the type; a FIFO does not block, and the target of a link does not change."""
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    make(kind, Path("file"))
    with pytest.raises(OSError, match=kind):
        read_own(Path("file"))
    with pytest.raises(OSError, match=r".+"):
        write_text(Path("file"), "mine")
    if kind == "a link":
        assert Path("target").read_text() == "secret"
        with open_regular(Path("file")) as file:  # a corpus may consist of links
            assert file.read() == b"secret"


def test_a_file_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the owner."""
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(OSError, match="belongs to another user"):
        read_own(tmp_path / "file")


def test_a_file_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that does not fit in memory is refused before it is read."""
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1 << 20)
    (tmp_path / "file").write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(OSError, match="more than 1 MiB"):
        read_own(tmp_path / "file")
    write_text(tmp_path / "file", "ü")
    assert read_own(tmp_path / "file").decode() == "ü"
