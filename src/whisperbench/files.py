"""Files and directories: atomic writing, strict JSON records, and the cache directory."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from whisperbench.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
FileState = tuple[int, int, int]
CHECKSUMS = "checksums.json"  # in directories of `build_directory_once`
FILE_TYPES = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}


def cache_directory() -> Path:
    """The directory of reproducible files, `$XDG_CACHE_HOME/whisperbench` or `~/.cache/whisperbench`."""
    import platformdirs

    return platformdirs.user_cache_path("whisperbench")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; other types are refused, because opening a FIFO would block.

    Raises:
        OSError: it is not a regular file or cannot be opened; `strerror` names its type or the target of a broken link.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if link := broken_link(path):
            raise OSError(error.errno, f"it is {link}", str(path)) from error
        raise
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"it is {FILE_TYPES.get(stat.S_IFMT(mode), 'a device')}, not a file", str(path))
    return path.open("rb")


def file_state(path: Path) -> FileState:
    """Size, time of modification and time of the last change of attributes, at least one of which changes with content.

    Raises:
        OSError: the file does not exist.
    """
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def changed_files(states: Mapping[Path, FileState]) -> list[Path]:
    """The files that are no longer in the states that `file_state` returned, or are missing."""
    changed = []
    for path, state in states.items():
        try:
            same = file_state(path) == state
        except OSError:
            same = False
        if not same:
            changed.append(path)
    return changed


def broken_link(path: Path) -> str:
    """A description of a symbolic link that cannot be followed; an empty string for every other path."""
    try:
        os.path.realpath(path, strict=True)
    except OSError as error:
        if path.is_symlink():
            why = "the links form a loop" if error.errno == errno.ELOOP else error.strerror
            return f"a link to {path.readlink()} that cannot be followed ({why})"
    return ""


def write_atomically(path: Path, body: object) -> None:
    """Write `body` as JSON and sync it; after an error the file is unchanged.

    Raises:
        OSError: the file cannot be written.
    """
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


def require_writable(directory: Path, option: str) -> None:
    """Create a directory if it is absent, and check that files can be created in it.

    Raises:
        ConfigError: it cannot be written; `option` names the option that sets it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{option}={directory} cannot be written ({reason}). Choose another directory.") from error


def sync(path: Path) -> None:
    """Flush the content of a file, or the entries of a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def build_directory_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Return `target`; if it is absent or was altered, `build` fills a temporary directory beside it, which is renamed.

    Raises:
        OSError: the directory cannot be read or written.
    """
    if target.is_dir() and not _is_as_built(target):
        shutil.rmtree(target)
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f"{target.name}.", suffix=".part", dir=target.parent, ignore_cleanup_errors=True
        ) as part:
            build(Path(part))
            write_atomically(Path(part, CHECKSUMS), _checksums(Path(part)))
            try:
                Path(part).rename(target)
            except OSError:
                if not target.is_dir():  # otherwise another process has built it
                    raise
    return target


def _is_as_built(directory: Path) -> bool:
    """Whether a directory of `build_directory_once` holds the files that were built, with their content."""
    try:
        return bool(json.loads((directory / CHECKSUMS).read_text(encoding="utf-8")) == _checksums(directory))
    except (FileNotFoundError, ValueError):
        return False


def _checksums(directory: Path) -> dict[str, str]:
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name != CHECKSUMS:
            with path.open("rb") as file:
                found[path.relative_to(directory).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def tail(path: Path, size: int = 1 << 16) -> str:
    """The last `size` bytes of a file as text; an empty string if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def read_json(record: type[T], content: bytes) -> T:
    """Parse `content` as a `record` with exact types, finite numbers, and the constraints of its annotations.

    Raises:
        ValueError: the content is invalid; the message names the field and the expected value.
    """
    from pydantic import ValidationError

    try:
        found: T = _adapter(cast("Any", record)).validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None
    return found


@functools.cache
def _adapter(record: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter, with_config

    return TypeAdapter(with_config(strict=True, allow_inf_nan=False)(record))
