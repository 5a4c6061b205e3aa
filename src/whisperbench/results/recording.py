"""Recording of a run on local disk: its journal, its measurement, and `finish`, which makes both a result.

    results/20261122T101500-1a2b3c4d5e6f7081-9f3a61c2.partial/
        journal.json        the process, its run and its options
        transcripts.jsonl   every result of every repeat, appended as it finishes
        measurement.json    everything else that a result needs, written at the end of the timed region
        artifacts/          environment.txt, engine.log

From measurement.json on, the result can be completed by `finish`: right away, or later by an upload.
"""

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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.corpus.audio import Samples
from whisperbench.corpus.corpus import is_copy
from whisperbench.errors import BundleError, ConfigError, EngineError
from whisperbench.files import read_json, sync, write_atomically
from whisperbench.measure.result import UtteranceResult
from whisperbench.measure.score import Score, score
from whisperbench.measure.timing import Measurement
from whisperbench.processes.owner import ProcessId
from whisperbench.progress import Listener
from whisperbench.results.bundle import ARTIFACTS, PARTIAL, Bundle, Origin, refuse_links, write_run_data
from whisperbench.results.names import SCHEMA
from whisperbench.results.plots import PLOTS, write_plots
from whisperbench.results.run_data import Milliseconds, RunData, run_data
from whisperbench.results.run_info import RunInfo
from whisperbench.results.samples import SAMPLES, write_samples
from whisperbench.results.transcripts import TABLE, transcript_table
from whisperbench.text import redact_file

JOURNAL_FILE = "journal.json"
TRANSCRIPTS = "transcripts.jsonl"
MEASUREMENT_FILE = "measurement.json"
ENGINE_LOG, ENGINE_LOGS = "engine.log", "engine*.log"  # each of several engines has one, with its number


@dataclasses.dataclass(frozen=True, slots=True)
class _JournalHeader:
    """The content of journal.json."""

    schema: str
    process: str
    run_id: str | None
    params: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class _Measured:
    """The content of measurement.json; the passes are without their results, of which the journal has `results`."""

    measurement: Measurement
    results: int
    info: RunInfo
    origin: Origin
    started_ms: Milliseconds
    ended_ms: Milliseconds


@dataclasses.dataclass(frozen=True, slots=True)
class Recording:
    """A complete measurement in its partial directory: the input of `finish`."""

    directory: Path
    config: BenchmarkConfig
    origin: Origin
    info: RunInfo
    measurement: Measurement
    started_ms: int
    ended_ms: int


class Journal:
    """A context manager around one measurement, which appends each result to a file.

    A journal without results is removed at the end, unless an engine has failed: then its log stays.
    """

    def __init__(self, config: BenchmarkConfig, origin: Origin, environment: str) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        results_dir = Path(config.results_dir)
        self.config, self.origin, self.finished = config, origin, 0
        self.directory = results_dir / f"{stamp}-{config.digest}-{secrets.token_hex(4)}{PARTIAL}"
        header = _JournalHeader(SCHEMA, str(ProcessId.this() or ""), origin.run_id, config.as_params())
        try:
            results_dir.mkdir(parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700)
            self.artifacts.mkdir()
            (self.artifacts / "environment.txt").write_text(environment, encoding="utf-8")
            write_atomically(self.directory / JOURNAL_FILE, dataclasses.asdict(header))
            self._file = os.open(self.directory / TRANSCRIPTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with contextlib.suppress(OSError):  # a network file system may have no locks
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an upload must not complete it meanwhile
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

    def append(self, result: UtteranceResult) -> None:
        """One line, in one write: after a kill at most the last line is incomplete.

        Raises:
            BundleError: the disk is full, or the directory was removed.
        """
        self._must_exist()
        line = json.dumps(dataclasses.asdict(result)).encode() + b"\n"
        try:
            written = os.write(self._file, line)
            if written < len(line):  # a disk that fills up takes a part; the next write raises
                os.write(self._file, line[written:])
        except OSError as error:
            raise _not_written(self.directory, error) from error
        self.finished += 1

    def measured(self, measurement: Measurement, info: RunInfo, started_ms: int, ended_ms: int) -> Recording:
        """Keep everything that the journal does not hold, at the end of the timed region.

        Raises:
            BundleError: the disk is full, or the directory was removed.
        """
        self._must_exist()
        passes = tuple(dataclasses.replace(each, results=()) for each in measurement.passes)
        kept = dataclasses.replace(measurement, passes=passes)
        body = _Measured(kept, self.finished, info, self.origin, started_ms, ended_ms)
        try:
            os.fsync(self._file)
            write_atomically(self.directory / MEASUREMENT_FILE, dataclasses.asdict(body))
        except OSError as error:
            raise _not_written(self.directory, error) from error
        return Recording(self.directory, self.config, self.origin, info, measurement, started_ms, ended_ms)

    def _must_exist(self) -> None:
        """Writing to a file that was removed raises nothing."""
        if not os.fstat(self._file).st_nlink and not (self.directory / TRANSCRIPTS).exists():
            raise BundleError(
                f"{self.directory} was removed during the measurement, so its transcripts are lost. Measure again with "
                "a results_dir that is not cleared."
            )


def finish(recording: Recording, listener: Listener, audio_of: Callable[[str], Samples] | None = None) -> Bundle:
    """Score a measurement and write its result; samples and plots follow when the result is safe.

    Args:
        audio_of: an utterance's samples at 16 kHz by its id; without it no samples are written.

    Raises:
        BundleError: the result cannot be written; it can be completed later.
    """
    config, measurement, artifacts = recording.config, recording.measurement, recording.directory / ARTIFACTS
    results = tuple(
        each for each in measurement.median.results if config.corpus_copies == 1 or not is_copy(each.utt_id)
    )
    scored = _score(config, results, listener)
    results = scored.results if scored else results
    times = {"started_ms": recording.started_ms, "ended_ms": recording.ended_ms}
    contents = run_data(config, recording.info, measurement, scored, **times)
    try:
        artifacts.mkdir(exist_ok=True)
        refuse_links(artifacts)
        for log in artifacts.glob(ENGINE_LOGS):
            redact_file(log, os.environ)
        (artifacts / TABLE).write_text(json.dumps(transcript_table(results), ensure_ascii=False), encoding="utf-8")
        (artifacts / "summary.md").write_text(contents.description, encoding="utf-8")
        bundle = seal(recording.directory, contents, recording.origin)
    except OSError as error:
        raise _not_written(recording.directory, error) from error
    listener.show(scored or results)
    extras: dict[str, Callable[[Path], None]] = {
        PLOTS: lambda directory: write_plots(directory, measurement.median, scored)
    }
    if audio_of:
        normalizer = scored.normalizer if scored else None
        extras[SAMPLES] = lambda directory: write_samples(directory, results, audio_of, config.seed, normalizer)
    for name, write in extras.items():
        bundle = _with_extra(bundle, name, write, listener)
    return bundle


def seal(directory: Path, contents: RunData, origin: Origin) -> Bundle:
    """Write bundle.json into a partial directory, sync everything, and give the directory its final name.

    Raises:
        OSError: the disk is full; the directory keeps its name.
    """
    final = directory.with_name(directory.name.removesuffix(PARTIAL))
    write_run_data(directory, final.name, contents, origin)
    for path in sorted(directory.rglob("*")):
        sync(path)
    sync(directory)
    directory.rename(final)
    sync(final.parent)
    return Bundle(final, final.name, contents, origin)


def _with_extra(bundle: Bundle, name: str, write: Callable[[Path], None], listener: Listener) -> Bundle:
    """The bundle with one more directory of artifacts, or with a warning that it cannot be written."""
    directory = bundle.artifacts / name
    try:
        write(directory)
    except Exception as error:  # whatever it is, the result itself is complete
        shutil.rmtree(directory, ignore_errors=True)
        warning = f"{name}/ could not be written ({type(error).__name__}: {error!s:.200})"
        listener.warned(warning)
        bundle = dataclasses.replace(bundle, contents=bundle.contents.with_warning(warning))
        with contextlib.suppress(OSError):  # the run has the warning all the same
            write_run_data(bundle.directory, bundle.id, bundle.contents, bundle.origin)
    return bundle


def _score(config: BenchmarkConfig, results: tuple[UtteranceResult, ...], listener: Listener) -> Score | None:
    """The score; None, which is reported, with random weights and where the corpus has no references."""
    if config.random_weights:
        listener.said("no WER: random weights (load_format=dummy)")
        return None
    if any(each.reference is None for each in results):
        listener.said(f"no WER: {config.corpus} has no transcripts")
        return None
    return score(results, config.language, config.seed)


def read_journal(directory: Path) -> tuple[UtteranceResult, ...]:
    """The finished results of a measurement; an incomplete last line does not count.

    Raises:
        BundleError: it is not a journal, or it is damaged.
    """
    try:
        lines = (directory / TRANSCRIPTS).read_bytes().split(b"\n")[:-1]
        return tuple(read_json(UtteranceResult, line) for line in lines)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{directory} is not the journal of a measurement ({TRANSCRIPTS}: {error!s:.200})."
        ) from error


def _read_header(directory: Path) -> _JournalHeader:
    try:
        return read_json(_JournalHeader, (directory / JOURNAL_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{directory} is not the journal of a measurement ({JOURNAL_FILE}: {error!s:.200})."
        ) from error


def read_recording(directory: Path) -> Recording:
    """A measurement that was not finished.

    Raises:
        BundleError: it was interrupted in the timed region, transcripts are missing, or its files are damaged.
    """
    header, results = _read_header(directory), read_journal(directory)
    try:
        measured = read_json(_Measured, (directory / MEASUREMENT_FILE).read_bytes())
        config = BenchmarkConfig.from_params(header.params)
    except ConfigError as error:
        raise BundleError(f"{directory} holds an option that is not allowed: {error}") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{directory} was not measured to its end ({MEASUREMENT_FILE}: {error!s:.200}).") from error
    known = {(each.repeat, each.utt_id): each for each in results}
    if len(known) < measured.results:
        raise BundleError(f"{directory} lacks {measured.results - len(known)} of {measured.results} transcripts.")
    ordered = [known[key] for key in sorted(known)]  # a corpus is sorted by id
    passes = tuple(
        dataclasses.replace(timed, results=tuple(each for each in ordered if each.repeat == repeat))
        for repeat, timed in enumerate(measured.measurement.passes)
    )
    measurement = dataclasses.replace(measured.measurement, passes=passes)
    return Recording(
        directory, config, measured.origin, measured.info, measurement, measured.started_ms, measured.ended_ms
    )


def complete(directory: Path, listener: Listener) -> Bundle:
    """Finish a measurement whose process ended before; without samples, since the audio may have changed.

    Raises:
        BundleError: as `read_recording` and `finish` do, or another process works on it.
    """
    if not directory.name.endswith(PARTIAL):
        raise BundleError(f"{directory} is not an unfinished measurement.")
    with _locked(directory):
        return finish(read_recording(directory), listener)


def abandoned(results_dir: Path) -> dict[Path, int]:
    """Journals of dead processes with their numbers of finished transcripts, oldest first; others are left out."""
    here, found = ProcessId.this(), {}
    for directory in sorted(results_dir.glob(f"*{PARTIAL}")):
        with contextlib.suppress(BundleError):
            process = ProcessId.parse(_read_header(directory).process)
            if here and process and process.is_dead(here) and (results := read_journal(directory)):
                found[directory] = len(results)
    return found


def _not_written(directory: Path, error: OSError) -> BundleError:
    measured = (directory / MEASUREMENT_FILE).exists()
    command = f"mlflow run . -e upload -P bundles={shlex.quote(str(directory))}"
    remedy = (
        f"Free some space, then complete the result: {command}"
        if measured
        else "Free some space, or choose another results_dir."
    )
    return BundleError(
        f"{directory}: the result cannot be written ({error.strerror or error}). Finished transcripts are in "
        f"{TRANSCRIPTS} there. {remedy}"
    )


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Exclude other processes that measure or complete it."""
    try:
        descriptor = os.open(directory / TRANSCRIPTS, os.O_RDONLY)
    except OSError as error:
        raise BundleError(f"{directory} is not the journal of a measurement ({error}).") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BundleError(f"{directory} is being measured by another process.") from error
    finally:
        os.close(descriptor)
