"""A measured result on local disk: complete or absent, and readable without MLflow.

    results/20261122T101500-1a2b3c4d5e6f7081-9f3a61c2/
        bundle.json         schema, id, origin, and one `RunContents`: params, metrics, history, tags, dataset, times
        artifacts/          transcripts.json, samples/, summary.md, environment.txt, engine.log
        transcripts.jsonl   every transcript of every repeat, as it came
        logged.json         which run of which server holds it, once one does

It is written under a temporary name, synced and renamed, before anything is sent anywhere.  While
a measurement runs, `journal.Journal` appends each finished transcript to `<name>.partial`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from whisperbench.errors import BundleError
from whisperbench.files import write_atomically
from whisperbench.results.contents import SCHEMA, Dataset, RunContents

CONTENTS = "bundle.json"
LOGGED = "logged.json"
ARTIFACTS = "artifacts"
PARTIAL = ".partial"
RUN_ID = re.compile(r"[0-9a-f]{32}")
BUNDLE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LATEST_MS = 1 << 53


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where a result belongs: its run as it was opened, and the tags that say who measured it and from which source.

    All of it is unknown (None, no tags) where it was measured without a tracking server.
    """

    experiment: str | None = None
    run_id: str | None = None
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Bundle:
    """One result directory and what its bundle.json says; `id` stays when the directory is renamed or copied."""

    directory: Path
    id: str
    contents: RunContents
    origin: Origin

    @property
    def artifacts(self) -> Path:
        return self.directory / ARTIFACTS

    @property
    def upload_command(self) -> str:
        return f"mlflow run . -e upload -P bundles={shlex.quote(str(self.directory))}"

    @property
    def logged(self) -> bool:
        """Whether it was logged from here, as far as this disk knows; the server has the last word."""
        return (self.directory / LOGGED).exists()

    def mark_logged(self, server: str, run_id: str) -> None:
        """Note where it was logged; a directory that cannot be written is no reason to fail."""
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


def write_contents(directory: Path, bundle_id: str, contents: RunContents, origin: Origin) -> None:
    """bundle.json: written last, and whole or not at all."""
    body = {
        "schema": SCHEMA,
        "id": bundle_id,
        "origin": dataclasses.asdict(origin),
        "contents": dataclasses.asdict(contents),
    }
    write_atomically(directory / CONTENTS, body)


def read_bundle(directory: Path) -> Bundle:
    """A bundle as it was measured.

    Raises:
        BundleError: it is not a bundle, was cut off while it was measured, was tampered with, or has another schema.
    """
    if directory.name.endswith(PARTIAL):
        raise BundleError(
            f"{directory} was cut off while it was measured: its transcripts.jsonl holds what was finished."
        )
    try:
        body = json.loads((directory / CONTENTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{directory} is not a result bundle: {CONTENTS} cannot be read ({error}).") from error
    if not isinstance(body, dict) or body.get("schema") != SCHEMA:
        found = body.get("schema") if isinstance(body, dict) else None
        raise BundleError(f"{directory} has schema {found!r:.80}; this version reads {SCHEMA!r}.")
    try:
        bundle = Bundle(
            directory, _matching(BUNDLE_ID, body["id"]), _contents(body["contents"]), _origin(body["origin"])
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BundleError(f"{directory}: {CONTENTS} is damaged ({type(error).__name__}: {error!s:.200}).") from error
    _refuse_links(bundle.artifacts)
    return bundle


def unlogged_bundles(results_dir: Path) -> list[Path]:
    """Complete bundles in a directory that were never logged from here, oldest first."""
    candidates = sorted(path.parent for path in results_dir.glob(f"*/{CONTENTS}"))
    return [path for path in candidates if not path.name.endswith(PARTIAL) and not (path / LOGGED).exists()]


def _refuse_links(artifacts: Path) -> None:
    """What is uploaded lies inside the bundle: a link could name any file of this machine."""
    if not artifacts.is_dir() or artifacts.is_symlink():
        raise BundleError(f"{artifacts} is not a directory: the bundle has lost its artifacts.")
    for path in artifacts.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BundleError(f"{path} is not a regular file: a result bundle holds no links.")


def _contents(fields: dict[str, Any]) -> RunContents:
    """Check every value's type: a bundle may have travelled."""
    return RunContents(
        name=_text(fields["name"]),
        params=_texts(fields["params"]),
        metrics={_text(k): _number(v) for k, v in fields["metrics"].items()},
        history={_text(k): [_number(x) for x in _sequence(v)] for k, v in fields["history"].items()},
        tags=_texts(fields["tags"]),
        dataset=Dataset(**{name: _text(fields["dataset"][name]) for name in ("name", "split", "digest", "source")}),
        description=_text(fields["description"]),
        started_ms=_moment(fields["started_ms"]),
        ended_ms=_moment(fields["ended_ms"]),
    )


def _origin(fields: dict[str, Any]) -> Origin:
    experiment, run_id = fields["experiment"], fields["run_id"]
    return Origin(
        None if experiment is None else _text(experiment),
        None if run_id is None else _matching(RUN_ID, run_id),
        _texts(fields["tags"]),
    )


def _texts(value: Mapping[object, object]) -> dict[str, str]:
    return {_text(k): _text(v) for k, v in value.items()}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is not text")
    value.encode()  # JSON can escape half of a surrogate pair, which no server takes
    return value


def _matching(pattern: re.Pattern[str], value: object) -> str:
    if not pattern.fullmatch(_text(value)):
        raise ValueError(f"{value!r:.80} does not match {pattern.pattern}")
    return _text(value)


def _sequence(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.80} is not a list")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r:.80} is not a finite number")
    return float(value)


def _moment(value: object) -> int:
    if not 0 <= (number := _number(value)) < LATEST_MS:
        raise ValueError(f"{value!r:.80} is not a time in milliseconds")
    return int(number)
