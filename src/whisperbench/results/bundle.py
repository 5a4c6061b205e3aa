"""Result bundle: the directory of one measured result, complete or absent, and readable without MLflow.

    results/20261122T101500-1a2b3c4d5e6f7081-9f3a61c2/
        bundle.json         schema, id, origin, and one `RunData`: params, metrics, history, tags, dataset, times
        artifacts/          transcripts.json, samples/, plots/, summary.md, config.json, environment.txt, engine.log
        transcripts.jsonl   every result of every repeat, in the order in which they finished
        logged.json         the server and the run that it was logged to; absent before

During the measurement the directory is named `<name>.partial` (`results.recording`).  It is synced and renamed before
anything is sent to a server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shlex
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from annotated_types import Predicate

from whisperbench.errors import BundleError
from whisperbench.files import open_regular, read_json, read_own, write_atomically
from whisperbench.results.names import SCHEMA, is_possible
from whisperbench.results.run_info import RunData
from whisperbench.text import shortened
from whisperbench.util import typed_command

BUNDLE_FILE = "bundle.json"
LOGGED = "logged.json"
ARTIFACTS = "artifacts"
PARTIAL = ".partial"
MAX_DEPTH = 3
"""Levels of directories below `artifacts`; a result has one."""


def of_32_hexadecimal_digits(text: str) -> bool:
    """Whether `text` is the id of an MLflow run; pydantic shows this function's name in its error."""
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None


def of_letters_digits_dots_and_dashes(text: str) -> bool:
    """Whether `text` is the id of a bundle: no character is special in a shell, a file system or an MLflow filter."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text) is not None


BundleId = Annotated[str, Predicate(of_letters_digits_dots_and_dashes)]


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """The run that a result was measured for, and that run's tags (user, source, commit).

    Without a tracking server `experiment` is None.
    """

    experiment: str | None = None
    run_id: Annotated[str, Predicate(of_32_hexadecimal_digits)] | None = None
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The content of bundle.json, and its directory; renaming or copying the directory keeps `id`."""

    schema: str = SCHEMA
    id: BundleId
    origin: Origin
    contents: RunData
    directory: Path = Path()

    @property
    def artifacts(self) -> Path:
        return self.directory / ARTIFACTS

    @property
    def logged(self) -> bool:
        """Whether logged.json records a run; the server may have deleted that run since."""
        return (self.directory / LOGGED).exists()

    def write(self) -> None:
        """Write bundle.json atomically.

        Raises:
            OSError: the disk is full, or the directory was removed.
        """
        body = dataclasses.asdict(self)
        del body["directory"]
        write_atomically(self.directory / BUNDLE_FILE, body)

    def mark_logged(self, server: str, run_id: str) -> None:
        """Write logged.json; an error is ignored, because the server has the result."""
        with contextlib.suppress(OSError):
            write_atomically(self.directory / LOGGED, {"server": server, "run_id": run_id})


def read_bundle(directory: Path) -> Bundle:
    """Read a result bundle.

    Raises:
        BundleError: it is not a bundle, is unfinished or damaged, contains links, or has another schema.
    """
    if directory.name.endswith(PARTIAL):
        raise BundleError(
            f"{directory} is an unfinished measurement. The finished transcripts are in its transcripts.jsonl."
        )
    try:
        content = read_own(directory / BUNDLE_FILE)
        schema = dict(json.loads(content)).get("schema")
        if schema != SCHEMA:
            raise BundleError(f"{directory} has schema {schema!r:.80}, but this version reads schema {SCHEMA!r}.")
        bundle = dataclasses.replace(read_json(Bundle, content), directory=directory)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise BundleError(f"{directory} is not a result bundle ({BUNDLE_FILE}: {shortened(error)}).") from error
    contents = bundle.contents
    repeats = ((name, value) for name, values in contents.history.items() for value in values)
    for name, value in (*contents.metrics.items(), *repeats):
        if not is_possible(name, value):
            raise BundleError(f"{directory}: {BUNDLE_FILE} holds {name:.80}={value:g}, which is impossible.")
    if contents.ended_ms < contents.started_ms:
        raise BundleError(f"{directory}: {BUNDLE_FILE} holds an end before the start of the run.")
    artifact_sizes(bundle.artifacts)
    return bundle


def unlogged_bundles(results_dir: Path) -> list[Path]:
    """Complete bundles in a directory that have no logged.json, oldest first."""
    candidates = sorted(path.parent for path in results_dir.glob(f"*/{BUNDLE_FILE}"))
    return [path for path in candidates if not path.name.endswith(PARTIAL) and not (path / LOGGED).exists()]


def artifact_sizes(artifacts: Path) -> dict[str, int]:
    """The sizes in bytes of the files in a directory of artifacts, by their paths below it.

    Only regular files of this user are accepted, because the upload of a link could disclose any file of this machine.

    Raises:
        BundleError: the directory is absent or too deep, or an entry is refused.
    """
    if not artifacts.is_dir() or artifacts.is_symlink():
        raise BundleError(f"{artifacts} is not a directory, so the bundle has no artifacts.")
    found, folders = {}, [artifacts]
    while folders:
        folder = folders.pop()
        for path in sorted(folder.iterdir()):
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode) and len(folder.relative_to(artifacts).parts) < MAX_DEPTH:
                folders.append(path)
            elif stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                found[path.relative_to(artifacts).as_posix()] = status.st_size
            else:
                raise BundleError(
                    f"{path} is not a regular file of this user. A result bundle must not contain links, devices, "
                    f"files of other users, or more than {MAX_DEPTH} levels of directories."
                )
    return found


def upload_command(bundles: Path) -> str:
    """The command that logs the bundle in a directory, or all bundles one level below it."""
    path, command = shlex.quote(str(bundles)), typed_command()
    return f"{command} upload --bundles {path}" if command else f"mlflow run . -e upload -P bundles={path}"


@contextlib.contextmanager
def locked(directory: Path, name: str = BUNDLE_FILE) -> Iterator[None]:
    """Lock the file `name` of a result directory, so that two processes do not log or complete it concurrently.

    Raises:
        BundleError: the file cannot be opened, or another process holds the lock.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_regular(directory / name, own=True))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BundleError(f"{directory} is being measured or logged by another process.") from error
        except OSError as error:
            raise BundleError(f"{directory} cannot be locked ({name}: {error.strerror}).") from error
        yield
