"""A measured result on local disk: complete or absent, and readable without MLflow.

    results/20261122T101500-1a2b3c4d5e6f7081-41213/
        bundle.json         params, metrics, history, tags, dataset, times: one `RunContents`
        artifacts/          transcripts.json, samples/, summary.md, environment.txt, engine.log

It is written under a temporary name, synced and renamed, before anything is sent anywhere.  While
a measurement runs, `Journal` appends each finished transcript beside it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from whisperbench.errors import BundleError
from whisperbench.measure import Transcript
from whisperbench.record import SCHEMA, Dataset, RunContents

CONTENTS = "bundle.json"
ARTIFACTS = "artifacts"
PARTIAL = ".partial"


@dataclasses.dataclass(frozen=True, slots=True)
class Bundle:
    """One result directory and what its bundle.json says.

    `run_id` and `experiment` are where it belongs on the tracking server, as known when it was measured.
    """

    directory: Path
    contents: RunContents
    experiment: str | None
    run_id: str | None

    @property
    def artifacts(self) -> Path:
        return self.directory / ARTIFACTS


class Journal:
    """Finished transcripts, appended as they come: a kill loses only what was in flight.

    `directory` is `<results_dir>/<name>.partial`; `Journal.finish` turns it into the bundle.
    """

    def __init__(self, results_dir: Path, digest: str, params: dict[str, str]) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self.name = f"{stamp}-{digest}-{os.getpid()}"
        self.results_dir = results_dir
        self.directory = results_dir / f"{self.name}{PARTIAL}"
        (self.directory / ARTIFACTS).mkdir(parents=True, mode=0o700)
        _write(self.directory / "params.json", json.dumps(params, indent=1))
        self._file = (self.directory / "transcripts.jsonl").open("a", encoding="utf-8")

    @property
    def artifacts(self) -> Path:
        return self.directory / ARTIFACTS

    def append(self, repeat: int, transcript: Transcript) -> None:
        line = json.dumps({"repeat": repeat, **dataclasses.asdict(transcript)}, ensure_ascii=False)
        self._file.write(line + "\n")
        self._file.flush()

    def finish(
        self,
        contents: RunContents,
        write_artifacts: Callable[[Path], None],
        *,
        experiment: str | None = None,
        run_id: str | None = None,
    ) -> Bundle:
        """Write everything, sync it, and give the directory its final name.

        Raises:
            BundleError: the disk refuses; what was finished stays in the partial directory.
        """
        try:
            write_artifacts(self.artifacts)
            body = {
                "schema": SCHEMA,
                "experiment": experiment,
                "run_id": run_id,
                "contents": dataclasses.asdict(contents),
            }
            _write(self.directory / CONTENTS, json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False))
            self._file.close()
            for path in sorted(self.directory.rglob("*")):
                _sync(path)
            final = self.results_dir / self.name
            self.directory.rename(final)
            _sync(self.results_dir)
        except OSError as error:
            raise BundleError(
                f"{self.directory}: the result cannot be written ({error}). Finished transcripts are in "
                "transcripts.jsonl there. Free some space or choose another results_dir."
            ) from error
        return Bundle(final, contents, experiment, run_id)

    def discard_if_empty(self) -> None:
        """Remove the partial directory when no transcript was finished."""
        self._file.close()
        if self.directory.exists() and not (self.directory / "transcripts.jsonl").stat().st_size:
            shutil.rmtree(self.directory)


def read_bundle(directory: Path) -> Bundle:
    """A bundle as it was measured.

    Raises:
        BundleError: it is not a bundle, was cut off while it was measured, or has another schema.
    """
    if directory.name.endswith(PARTIAL):
        raise BundleError(
            f"{directory} was cut off while it was measured: its transcripts.jsonl holds what was finished."
        )
    path = directory / CONTENTS
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{directory} is not a result bundle: {path.name} cannot be read ({error}).") from error
    if not isinstance(body, dict) or body.get("schema") != SCHEMA:
        found = body.get("schema") if isinstance(body, dict) else None
        raise BundleError(f"{directory} has schema {found!r}; this version reads {SCHEMA!r}.")
    try:
        contents = _contents(body["contents"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{directory}: {CONTENTS} is damaged ({type(error).__name__}: {error}).") from error
    run_id = body.get("run_id")
    if run_id is not None and not (isinstance(run_id, str) and re.fullmatch(r"[0-9a-f]{32}", run_id)):
        raise BundleError(f"{directory}: run_id {run_id!r} is not a run id.")
    return Bundle(directory, contents, _optional_text(body.get("experiment")), run_id)


def _contents(fields: dict[str, Any]) -> RunContents:
    """Check every value's type: a bundle may have travelled."""
    return RunContents(
        name=_text(fields["name"]),
        params={_text(k): _text(v) for k, v in fields["params"].items()},
        metrics={_text(k): _number(v) for k, v in fields["metrics"].items()},
        history={_text(k): [_number(x) for x in v] for k, v in fields["history"].items()},
        tags={_text(k): _text(v) for k, v in fields["tags"].items()},
        dataset=Dataset(**{name: _text(fields["dataset"][name]) for name in ("name", "split", "digest", "source")}),
        description=_text(fields["description"]),
        started_ms=int(_number(fields["started_ms"])),
        ended_ms=int(_number(fields["ended_ms"])),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is not text")
    return value


def _optional_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        raise TypeError(f"{value!r:.80} is not a finite number")
    return float(value)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
