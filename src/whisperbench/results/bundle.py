"""A measured result on local disk: complete or absent, and readable without MLflow.

    results/20261122T101500-1a2b3c4d5e6f7081-9f3a61c2/
        bundle.json         schema, id, origin, and one `RunData`: params, metrics, history, tags, dataset, times
        artifacts/          transcripts.json, samples/, plots/, summary.md, environment.txt, engine.log
        transcripts.jsonl   every result of every repeat, in the order in which they finished
        logged.json         the server and the run that hold it, once it is logged

It is written under a temporary name (`recording`), synced and renamed, before anything is sent to a server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from annotated_types import Predicate

from whisperbench.errors import BundleError
from whisperbench.files import read_json, write_atomically
from whisperbench.results.names import SCHEMA
from whisperbench.results.run_data import RunData

CONTENTS = "bundle.json"
LOGGED = "logged.json"
ARTIFACTS = "artifacts"
PARTIAL = ".partial"


def of_32_hexadecimal_digits(text: str) -> bool:
    """The ids of MLflow's runs."""
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None


def of_letters_digits_dots_and_dashes(text: str) -> bool:
    """The ids of bundles: nothing that means something to a shell, a file system or a filter of MLflow."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text) is not None


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a result: its experiment and run, and the tags with its user and source.

    The first two are None where it was measured without a tracking server.
    """

    experiment: str | None = None
    run_id: Annotated[str, Predicate(of_32_hexadecimal_digits)] | None = None
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Bundle:
    """One result directory and the content of its bundle.json; `id` stays when the directory is renamed or copied."""

    directory: Path
    id: str
    contents: RunData
    origin: Origin

    @property
    def artifacts(self) -> Path:
        return self.directory / ARTIFACTS

    @property
    def upload_command(self) -> str:
        return f"mlflow run . -e upload -P bundles={shlex.quote(str(self.directory))}"

    @property
    def logged(self) -> bool:
        """Whether logged.json exists; only the server can confirm it."""
        return (self.directory / LOGGED).exists()

    def mark_logged(self, server: str, run_id: str) -> None:
        """Write logged.json; a directory that cannot be written is not an error."""
        with contextlib.suppress(OSError):
            write_atomically(self.directory / LOGGED, {"server": server, "run_id": run_id})

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process at a time logs a bundle: two would open two runs for it."""
        descriptor = os.open(self.directory / CONTENTS, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise BundleError(f"{self.directory} is being logged by another process. Wait for it.") from error
            yield
        finally:
            os.close(descriptor)


@dataclasses.dataclass(frozen=True, slots=True)
class _Body:
    """The content of bundle.json."""

    schema: str
    id: Annotated[str, Predicate(of_letters_digits_dots_and_dashes)]
    origin: Origin
    contents: RunData


def write_run_data(directory: Path, bundle_id: str, contents: RunData, origin: Origin) -> None:
    """Write bundle.json, completely or not at all."""
    write_atomically(directory / CONTENTS, dataclasses.asdict(_Body(SCHEMA, bundle_id, origin, contents)))


def read_bundle(directory: Path) -> Bundle:
    """Read a bundle.

    Raises:
        BundleError: it is not a bundle, is incomplete, is damaged, or has another schema.
    """
    if directory.name.endswith(PARTIAL):
        raise BundleError(
            f"{directory} was cut off while it was measured: its transcripts.jsonl holds what was finished."
        )
    try:
        content = (directory / CONTENTS).read_bytes()
        schema = dict(json.loads(content)).get("schema")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise BundleError(f"{directory} is not a result bundle: {CONTENTS} cannot be read ({error}).") from error
    if schema != SCHEMA:
        raise BundleError(f"{directory} has schema {schema!r:.80}; this version reads {SCHEMA!r}.")
    try:
        body = read_json(_Body, content)
    except ValueError as error:
        raise BundleError(f"{directory}: {CONTENTS} is damaged ({error!s:.200}).") from error
    bundle = Bundle(directory, body.id, body.contents, body.origin)
    refuse_links(bundle.artifacts)
    return bundle


def unlogged_bundles(results_dir: Path) -> list[Path]:
    """Complete bundles in a directory without logged.json, oldest first."""
    candidates = sorted(path.parent for path in results_dir.glob(f"*/{CONTENTS}"))
    return [path for path in candidates if not path.name.endswith(PARTIAL) and not (path / LOGGED).exists()]


def refuse_links(artifacts: Path) -> None:
    """Refuse links among the artifacts: an upload would follow them to any file of this machine."""
    if not artifacts.is_dir() or artifacts.is_symlink():
        raise BundleError(f"{artifacts} is not a directory: the bundle has lost its artifacts.")
    for path in artifacts.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BundleError(f"{path} is not a regular file: a result bundle holds no links.")
