"""Files and directories that are whole and on the disk, or not there; and where a user's cache is."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_directory() -> Path:
    """What can be made again is kept here: `~/.cache/whisperbench`, or where XDG_CACHE_HOME says."""
    import platformdirs

    return platformdirs.user_cache_path("whisperbench")


def write_atomically(path: Path, body: object) -> None:
    """`body` as JSON: the whole file, synced, or no file."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(body, file, indent=1, ensure_ascii=False, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until a file's content, or a directory's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def build_directory_once(target: Path, build: Callable[[Path], None]) -> Path:
    """`target`, built when it does not exist: in a directory next to it that is renamed when it is whole.

    Raises:
        OSError: it cannot be written.
    """
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".part", dir=target.parent))
        try:
            build(part)
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError:
        if not target.is_dir():  # else another process was faster
            raise
    return target


def tail(path: Path, size: int = 1 << 16) -> str:
    """The last `size` bytes of a file as text; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
