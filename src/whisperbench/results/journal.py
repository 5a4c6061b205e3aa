"""What is on disk while a measurement goes on: a kill loses only what was in flight.

`<results_dir>/<name>.partial` holds journal.json (which process works on which run, and the options)
and transcripts.jsonl, one line per finished utterance; `Journal.finish` turns it into a bundle.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from whisperbench.errors import BundleError, EngineError
from whisperbench.files import sync, write_atomically
from whisperbench.measure.clock import Measurement, Transcript
from whisperbench.results.bundle import ARTIFACTS, PARTIAL, Bundle, Origin, write_contents
from whisperbench.results.contents import RunContents
from whisperbench.results.names import SCHEMA
from whisperbench.results.schema import read_json
from whisperbench.supervise.owner import Process

FACTS = "journal.json"
TRANSCRIPTS = "transcripts.jsonl"
CLOCK = "measurement.json"


@dataclasses.dataclass(frozen=True, slots=True)
class _Facts:
    """What journal.json holds."""

    schema: str
    process: str
    run_id: str | None
    params: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class _Line(Transcript):
    """A line of transcripts.jsonl: a transcript, and the repeat that it belongs to."""

    repeat: int

    def numbered(self) -> tuple[int, Transcript]:
        """(repeat, transcript)."""
        fields = dataclasses.asdict(self)
        return fields.pop("repeat"), Transcript(**fields)


class Journal:
    """A context manager around one measurement; an empty one leaves nothing behind, except the log of an engine
    that failed."""

    def __init__(self, results_dir: Path, digest: str, params: Mapping[str, str], origin: Origin) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self.name = f"{stamp}-{digest}-{secrets.token_hex(4)}"
        self.results_dir, self.origin = results_dir, origin
        self.directory = results_dir / f"{self.name}{PARTIAL}"
        self.finished = 0
        facts = _Facts(SCHEMA, str(Process.this() or ""), origin.run_id, dict(params))
        try:
            results_dir.mkdir(parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700)
            self.artifacts.mkdir()
            write_atomically(self.directory / FACTS, dataclasses.asdict(facts))
            self._file = os.open(self.directory / TRANSCRIPTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise BundleError(f"results_dir={results_dir} cannot be written: {error}.") from error

    @property
    def artifacts(self) -> Path:
        return self.directory / ARTIFACTS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
        if not self.finished and not isinstance(error, EngineError):
            shutil.rmtree(self.directory, ignore_errors=True)

    def append(self, repeat: int, transcript: Transcript) -> None:
        """One line, in one write: after a kill there is at most one incomplete line, the last.

        Raises:
            BundleError: the disk refuses.
        """
        line = json.dumps({"repeat": repeat, **dataclasses.asdict(transcript)})
        try:
            self._write(line.encode() + b"\n")
        except OSError as error:
            raise self._refused(error) from error
        self.finished += 1

    def clock_stopped(self, measurement: Measurement) -> None:
        """Keep what no transcript tells, the times and the GPU's readings, before anything is scored."""
        passes = [
            {
                "wall_seconds": each.wall_seconds,
                "cpu_seconds": each.cpu_seconds,
                "utterances": each.utterances,
                "gpu": dataclasses.asdict(each.gpu) if each.gpu else None,
                "fleet": dataclasses.asdict(each.fleet) if each.fleet else None,
            }
            for each in measurement.passes
        ]
        try:
            os.fsync(self._file)
            write_atomically(self.directory / CLOCK, {"warmup_seconds": measurement.warmup_seconds, "passes": passes})
        except OSError as error:
            raise self._refused(error) from error

    def finish(self, contents: RunContents, write_artifacts: Callable[[Path], None]) -> Bundle:
        """Write everything, sync it, and give the directory its final name.

        Raises:
            BundleError: the disk refuses; what was finished stays in the partial directory.
        """
        final = self.results_dir / self.name
        try:
            write_artifacts(self.artifacts)
            write_contents(self.directory, self.name, contents, self.origin)
            for path in sorted(self.directory.rglob("*")):
                sync(path)
            sync(self.directory)
            self.directory.rename(final)
            sync(self.results_dir)
        except OSError as error:
            raise self._refused(error) from error
        return Bundle(final, self.name, contents, self.origin)

    def _write(self, line: bytes) -> None:
        written = os.write(self._file, line)
        if written < len(line):  # a disk that fills up takes a part; the next write says why
            os.write(self._file, line[written:])

    def _refused(self, error: OSError) -> BundleError:
        return BundleError(
            f"{self.directory}: the result cannot be written ({error.strerror or error}). Finished transcripts are in "
            f"{TRANSCRIPTS} there. Free some space or choose another results_dir."
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Partial:
    """What a measurement that was cut off left: (repeat, transcript) of every finished utterance."""

    directory: Path
    process: Process | None
    run_id: str | None
    transcripts: tuple[tuple[int, Transcript], ...]


def read_partial(directory: Path) -> Partial:
    """A journal; a last line without its end was in flight and does not count.

    Raises:
        BundleError: it is not a journal, or is damaged.
    """
    reading = FACTS
    try:
        facts = read_json(_Facts, (directory / FACTS).read_bytes())
        reading = TRANSCRIPTS
        lines = (directory / TRANSCRIPTS).read_bytes().split(b"\n")[:-1]
        found = tuple(read_json(_Line, line).numbered() for line in lines)
    except (OSError, ValueError) as error:
        raise BundleError(f"{directory} is no journal of a measurement ({reading}: {error!s:.200}).") from error
    return Partial(directory, Process.parse(facts.process), facts.run_id, found)


def abandoned(results_dir: Path) -> list[Partial]:
    """Journals with finished transcripts whose process is dead, oldest first; unreadable ones are passed over."""
    here, found = Process.this(), []
    for directory in sorted(results_dir.glob(f"*{PARTIAL}")):
        try:
            partial = read_partial(directory)
        except BundleError:
            continue
        if here and partial.transcripts and partial.process and partial.process.is_dead(here):
            found.append(partial)
    return found
