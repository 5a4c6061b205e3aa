"""Recording of a run on local disk: its journal, the measurement, and the completion of a stopped run."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
import shlex
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.engines.base import PassUsage
from whisperbench.errors import BundleError, ConfigError, EngineError
from whisperbench.files import read_json, sync, write_atomically
from whisperbench.measure.gpu import GpuReadings
from whisperbench.measure.score import Score, score
from whisperbench.measure.timing import Measurement, Pass, Transcript
from whisperbench.processes.owner import ProcessId
from whisperbench.results.bundle import ARTIFACTS, PARTIAL, Bundle, Origin, refuse_links, write_run_data
from whisperbench.results.names import SCHEMA
from whisperbench.results.run_data import Milliseconds, RunData, run_data
from whisperbench.results.run_info import RunInfo
from whisperbench.results.transcripts import TABLE, transcript_table

JOURNAL_FILE = "journal.json"
TRANSCRIPTS = "transcripts.jsonl"
CLOCK = "measurement.json"


@dataclasses.dataclass(frozen=True, slots=True)
class _JournalHeader:
    """What journal.json holds."""

    schema: str
    process: str
    run_id: str | None
    params: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class StoppedPass:
    """One timed pass without its transcripts."""

    wall_seconds: float
    cpu_seconds: float
    utterances: int
    gpu: GpuReadings | None
    frozen_seconds: float | None
    rounds: int = 1
    fleet: PassUsage | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Stopped:
    """What measurement.json holds: everything that a result needs beside its transcripts, in the corpus's order."""

    warmup_seconds: float
    passes: tuple[StoppedPass, ...]
    utt_ids: tuple[str, ...]
    facts: RunInfo
    origin: Origin
    started_ms: Milliseconds
    ended_ms: Milliseconds
    single_gpu_rates: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class _Line(Transcript):
    """A line of transcripts.jsonl: a transcript, and the repeat that it belongs to."""

    repeat: int = dataclasses.field(kw_only=True)

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
        facts = _JournalHeader(SCHEMA, str(ProcessId.this() or ""), origin.run_id, dict(params))
        try:
            results_dir.mkdir(parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700)
            self.artifacts.mkdir()
            write_atomically(self.directory / JOURNAL_FILE, dataclasses.asdict(facts))
            self._file = os.open(self.directory / TRANSCRIPTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with contextlib.suppress(OSError):  # on a network's file system without locks
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody completes what is being measured
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
            BundleError: the disk refuses, or the directory was removed.
        """
        self._must_exist()
        line = json.dumps({"repeat": repeat, **dataclasses.asdict(transcript)})
        try:
            self._write(line.encode() + b"\n")
        except OSError as error:
            raise self._refused(error) from error
        self.finished += 1

    def clock_stopped(self, measurement: Measurement, facts: RunInfo, started_ms: int, ended_ms: int) -> None:
        """Keep all that no transcript tells before anything is scored: from here on the result can be completed."""
        passes = tuple(
            StoppedPass(
                each.wall_seconds,
                each.cpu_seconds,
                each.utterances,
                each.gpu,
                each.frozen_seconds,
                each.rounds,
                each.shared,
            )
            for each in measurement.passes
        )
        utt_ids = tuple(each.utt_id for each in measurement.median.transcripts)
        body = Stopped(
            measurement.warmup_seconds,
            passes,
            utt_ids,
            facts,
            self.origin,
            started_ms,
            ended_ms,
            measurement.single_gpu_rates,
        )
        try:
            os.fsync(self._file)
            write_atomically(self.directory / CLOCK, dataclasses.asdict(body))
        except OSError as error:
            raise self._refused(error) from error

    def finish(self, contents: RunData, write_artifacts: Callable[[Path], None]) -> Bundle:
        """Write everything, sync it, and give the directory its final name.

        Raises:
            BundleError: the disk refuses; what was finished stays in the partial directory.
        """
        try:
            self._must_exist()
            return seal(self.directory, contents, self.origin, write_artifacts)
        except OSError as error:
            raise self._refused(error) from error

    def _must_exist(self) -> None:
        """A file that was removed takes what is written to it, and keeps nothing."""
        if not os.fstat(self._file).st_nlink and not (self.directory / TRANSCRIPTS).exists():
            raise BundleError(
                f"{self.directory} was removed while the measurement went on: its transcripts are lost. Measure again, "
                "and choose a results_dir that nobody clears away."
            )

    def _write(self, line: bytes) -> None:
        written = os.write(self._file, line)
        if written < len(line):  # a disk that fills up takes a part; the next write says why
            os.write(self._file, line[written:])

    def _refused(self, error: OSError) -> BundleError:
        upload = f"mlflow run . -e upload -P bundles={shlex.quote(str(self.directory))}"
        complete = f" Then complete the result: {upload}" if (self.directory / CLOCK).exists() else ""
        return BundleError(
            f"{self.directory}: the result cannot be written ({error.strerror or error}). Finished transcripts are in "
            f"{TRANSCRIPTS} there. Free some space or choose another results_dir.{complete}"
        )


def seal(directory: Path, contents: RunData, origin: Origin, write_artifacts: Callable[[Path], None]) -> Bundle:
    """A partial directory, its transcripts complete, as a bundle: everything written and synced, under its final name.

    Raises:
        OSError: the disk refuses; the directory keeps its name.
    """
    final = directory.with_name(directory.name.removesuffix(PARTIAL))
    write_artifacts(directory / ARTIFACTS)
    write_run_data(directory, final.name, contents, origin)
    for path in sorted(directory.rglob("*")):
        sync(path)
    sync(directory)
    directory.rename(final)
    sync(final.parent)
    return Bundle(final, final.name, contents, origin)


@dataclasses.dataclass(frozen=True, slots=True)
class Partial:
    """What a measurement that was cut off left: (repeat, transcript) of every finished utterance."""

    directory: Path
    process: ProcessId | None
    run_id: str | None
    params: Mapping[str, str]
    transcripts: tuple[tuple[int, Transcript], ...]


def read_partial(directory: Path) -> Partial:
    """A journal; a last line without its end was in flight and does not count.

    Raises:
        BundleError: it is not a journal, or is damaged.
    """
    reading = JOURNAL_FILE
    try:
        facts = read_json(_JournalHeader, (directory / JOURNAL_FILE).read_bytes())
        reading = TRANSCRIPTS
        lines = (directory / TRANSCRIPTS).read_bytes().split(b"\n")[:-1]
        found = tuple(read_json(_Line, line).numbered() for line in lines)
    except (OSError, ValueError) as error:
        raise BundleError(f"{directory} is no journal of a measurement ({reading}: {error!s:.200}).") from error
    return Partial(directory, ProcessId.parse(facts.process), facts.run_id, facts.params, found)


def read_stopped(directory: Path) -> Stopped:
    """What was kept when the clock had stopped.

    Raises:
        BundleError: it had not, or its files are damaged.
    """
    try:
        return read_json(Stopped, (directory / CLOCK).read_bytes())
    except (OSError, ValueError) as error:
        raise BundleError(f"{directory} was not measured to its end ({CLOCK}: {error!s:.200}).") from error


def abandoned(results_dir: Path) -> list[Partial]:
    """Journals with finished transcripts whose process is dead, oldest first; unreadable ones are passed over."""
    here, found = ProcessId.this(), []
    for directory in sorted(results_dir.glob(f"*{PARTIAL}")):
        try:
            partial = read_partial(directory)
        except BundleError:
            continue
        if here and partial.transcripts and partial.process and partial.process.is_dead(here):
            found.append(partial)
    return found


def complete(directory: Path) -> Bundle:
    """Score what was transcribed and write the result, as the measurement itself would have; without samples, since
    the audio may have changed or be elsewhere.

    Raises:
        BundleError: the clock had not stopped, transcripts are missing, it is being measured, or the disk refuses.
    """
    if not directory.name.endswith(PARTIAL):
        raise BundleError(f"{directory} is no measurement that was cut off.")
    with _locked(directory):
        partial, stopped = read_partial(directory), read_stopped(directory)
        found = defaultdict(list)  # of several rounds an utterance has several
        for repeat, transcript in partial.transcripts:
            found[repeat, transcript.utt_id].append(transcript)
        wanted = Counter((repeat, utt_id) for repeat in range(len(stopped.passes)) for utt_id in stopped.utt_ids)
        if missing := sum(max(0, count - len(found[each])) for each, count in wanted.items()):
            raise BundleError(f"{directory} lacks {missing} of {wanted.total()} transcripts.")
        try:
            config = BenchmarkConfig.from_params(partial.params)
        except ConfigError as error:
            raise BundleError(f"{directory} holds an option that is not allowed: {error}") from error
        passes = []
        for repeat, each in enumerate(stopped.passes):
            passes.append(
                Pass(
                    each.wall_seconds,
                    each.cpu_seconds,
                    tuple(found[repeat, utt_id].pop(0) for utt_id in stopped.utt_ids),
                    each.gpu,
                    frozen_seconds=each.frozen_seconds,
                    rounds=each.rounds,
                    shared=each.fleet,
                )
            )
        measurement = Measurement(stopped.warmup_seconds, tuple(passes), stopped.single_gpu_rates)
        transcripts = measurement.median.first_round
        silent = config.random_weights or any(each.reference is None for each in transcripts)
        scored = None if silent else score(transcripts, config.language, config.seed)
        times = {"started_ms": stopped.started_ms, "ended_ms": stopped.ended_ms}
        contents = run_data(config, stopped.facts, measurement, scored, **times)
        try:
            (directory / ARTIFACTS).mkdir(exist_ok=True)
            refuse_links(directory / ARTIFACTS)
            return seal(
                directory, contents, stopped.origin, lambda into: write_texts(into, transcripts, scored, contents)
            )
        except OSError as error:
            raise BundleError(f"{directory}: the result cannot be written ({error.strerror or error}).") from error


def write_texts(directory: Path, transcripts: Sequence[Transcript], scored: Score | None, contents: RunData) -> None:
    """transcripts.json and summary.md."""
    table = transcript_table(transcripts, scored)
    (directory / TABLE).write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
    (directory / "summary.md").write_text(contents.description, encoding="utf-8")


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Not what another process measures or completes."""
    try:
        descriptor = os.open(directory / TRANSCRIPTS, os.O_RDONLY)
    except OSError as error:
        raise BundleError(f"{directory} is no journal of a measurement ({error}).") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BundleError(f"{directory} is being measured by another process.") from error
    finally:
        os.close(descriptor)
