"""Files that other users can write or replace: only regular files of this user are opened, and records are checked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from whisperbench import files
from whisperbench.files import file_sha256, open_regular, read_json, read_own, write_text


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "it is not a regular file"),
        (Path.mkdir, "it is not a regular file"),
        (bound_socket, "No such device"),
        (lambda path: path.symlink_to("target"), "it is a link"),
    ],
)
def test_only_regular_files_are_read_and_written(
    make: Callable[[Path], None], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FIFO does not block, and the target of a link does not change."""
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    Path("target").write_text("secret")
    make(Path("file"))
    with pytest.raises(OSError, match=reason):
        read_own(Path("file"))
    with pytest.raises(OSError, match=r".+"):
        write_text(Path("file"), "mine")
    assert Path("target").read_text() == "secret"
    if reason == "it is a link":
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


@dataclasses.dataclass(frozen=True, slots=True)
class Inner:
    """A record inside another."""

    numbers: Mapping[str, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Outer:
    """The content of a file."""

    name: str
    inner: Inner


def written(name: Any = "a", number: Any = 1.5) -> bytes:
    return json.dumps({"name": name, "inner": {"numbers": {"wer": number}}}).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (written(name=1), r"^name: Input should be a valid string$"),
        (written(number="1.5"), r"^inner\.numbers\.wer: Input should be a valid number$"),
        (written(number=True), r"^inner\.numbers\.wer: Input should be a valid number$"),
        (written(number=float("inf")), r"^inner\.numbers\.wer: Input should be a finite number$"),
        (b'{"name": "a"}', r"^inner: Field required$"),
        (b"\xff", r"^Invalid JSON: "),
        (b"[" * 100_000, r"^Invalid JSON: recursion limit"),
    ],
)
def test_a_record_with_a_wrong_value(content: bytes, message: str) -> None:
    """The error names the field and what it should be; nothing is converted but a whole number."""
    with pytest.raises(ValueError, match=message):
        read_json(Outer, content)
    assert read_json(Outer, written(number=2)) == Outer("a", Inner({"wer": 2.0}))


def test_the_digest_of_a_large_file_is_kept_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hashing large-v3 at every start took seconds; a change with the same size and time is noticed by the ctime."""
    monkeypatch.setattr(files, "cache_directory", lambda: tmp_path / "cache")
    monkeypatch.setattr(files, "MIN_KEPT_BYTES", 2)
    hashed, file_digest = list[str](), hashlib.file_digest

    def counting(file: BinaryIO, name: str) -> object:
        hashed.append(file.name)
        return file_digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(b"one")
    small.write_bytes(b"x")
    for path, times in ((large, 1), (small, 2)):
        hashed.clear()
        for _ in range(2):
            assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
        assert hashed == [str(path)] * times
    state = large.stat()
    large.write_bytes(b"two")
    os.utime(large, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file_sha256(large) == hashlib.sha256(b"two").hexdigest()
    for kept in (tmp_path / "cache").rglob("*.json"):
        kept.write_text("5")
    assert file_sha256(large) == hashlib.sha256(b"two").hexdigest()
