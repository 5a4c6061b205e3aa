"""Files and directories: atomic writing, strict JSON records, and the cache directory."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from whisperbench.errors import ConfigError, WhisperbenchError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
FileState = tuple[int, int, int]
CHECKSUMS = "checksums.json"  # in directories of `build_directory_once`
MIN_KEPT_BYTES = 1 << 26  # of a file whose digest is kept; a digest takes 2 to 7 s for large-v3 (3 GB)
MAX_FILE_BYTES = 1 << 30
"""Limit for the files of a measurement; those of 100,000 utterances have 50 MB."""


def cache_directory() -> Path:
    """The directory of reproducible files, `$XDG_CACHE_HOME/whisperbench` or `~/.cache/whisperbench`."""
    import platformdirs

    return platformdirs.user_cache_path("whisperbench")


def open_regular(path: Path, *, own: bool = False) -> BufferedReader:
    """Open a regular file for reading; other types are refused, and opening a FIFO does not block.

    Args:
        own: refuse links and files of other users, in a directory that other users can write to.

    Raises:
        OSError: the file is refused or cannot be opened; `strerror` is the reason.
    """
    if own and path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link", str(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if own else 0))
    status, reason = os.fstat(descriptor), ""
    if not stat.S_ISREG(status.st_mode):
        reason = "it is not a regular file"
    elif own and status.st_uid != os.geteuid():
        reason = f"it belongs to another user (uid {status.st_uid})"
    if reason:
        os.close(descriptor)
        raise OSError(errno.EINVAL, reason, str(path))
    return os.fdopen(descriptor, "rb")


def read_own(path: Path) -> bytes:
    """The content of a regular file of this user, of at most MAX_FILE_BYTES.

    Raises:
        OSError: the file is refused or cannot be read.
    """
    with open_regular(path, own=True) as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MAX_FILE_BYTES >> 20} MiB", str(path))
    return content


def write_text(path: Path, text: str) -> None:
    """Write a file in a directory that other users can write to; a link is not followed.

    Raises:
        OSError: the file cannot be written, or is a link or a FIFO.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o666), "w", encoding="utf-8") as file:
        file.write(text)


def file_state(path: Path) -> FileState:
    """Size and times of the last change of content and of attributes, at least one of which changes with the content.

    Raises:
        OSError: the file does not exist.
    """
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def changed_files(states: Mapping[Path, FileState]) -> list[Path]:
    """The files that are no longer in the states that `file_state` returned, or are missing."""
    changed = []
    for path, state in states.items():
        with contextlib.suppress(OSError):
            if file_state(path) == state:
                continue
        changed.append(path)
    return changed


def require_unchanged(states: Mapping[Path, FileState], what: str) -> None:
    """Require that files are in the states that `file_state` returned; `what` names them in the message.

    Raises:
        WhisperbenchError: files were changed or replaced; the message names some of them.
    """
    if changed := changed_files(states):
        raise WhisperbenchError(
            f"{len(changed)} of {len(states)} {what} changed after they were checked, so the result may not be that of "
            f"the recorded digest: {', '.join(map(str, changed[:5]))}. Run again while the files do not change."
        )


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


def file_sha256(path: Path) -> str:
    """SHA-256 of a file; that of a large file is kept in the cache directory until the state of the file changes.

    Raises:
        OSError: the file cannot be read.
    """
    if path.stat().st_size < MIN_KEPT_BYTES:
        return _sha256(path)
    state = [str(path), *file_state(path)]
    kept = cache_directory() / "sha256" / f"{hashlib.sha256(bytes(path)).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        *known, digest = json.loads(kept.read_bytes())
        if known == state:
            return str(digest)
    digest = _sha256(path)
    with contextlib.suppress(OSError):  # without the cache, the next start takes some seconds longer
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, [*state, digest])
    return digest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
            found[path.relative_to(directory).as_posix()] = file_sha256(path)
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
        return cast("T", _adapter(cast("Any", record)).validate_json(content))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None


@functools.cache
def _adapter(record: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter, with_config

    return TypeAdapter(with_config(strict=True, allow_inf_nan=False)(record))
