"""Recording of one measurement on local disk.

    results/20261122T101500-1a2b3c4d5e6f7081-9f3a61c2.partial/
        journal.json        the process, its run and its options
        transcripts.jsonl   every result of every repeat, appended when it is finished
        measurement.json    everything else that a result needs, written at the end of the timed region
        artifacts/          config.json, environment.txt, engine.log

`finish` turns a recording with a measurement.json into a bundle, after the measurement or during a later upload.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
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
from whisperbench.files import read_json, read_own, sync, write_atomically
from whisperbench.measure.result import UtteranceResult
from whisperbench.measure.score import Score, score
from whisperbench.measure.timing import Measurement
from whisperbench.processes.owner import ProcessId
from whisperbench.progress import Listener
from whisperbench.results.bundle import (
    ARTIFACTS,
    PARTIAL,
    Bundle,
    BundleId,
    Origin,
    artifact_sizes,
    locked,
    upload_command,
    write_run_data,
)
from whisperbench.results.names import SCHEMA
from whisperbench.results.plots import PLOTS, write_plots
from whisperbench.results.run_data import Milliseconds, RunData, run_data
from whisperbench.results.run_info import RunInfo
from whisperbench.results.samples import SAMPLES, write_samples
from whisperbench.results.transcripts import TABLE, transcript_table
from whisperbench.text import redact_file, shortened

JOURNAL_FILE = "journal.json"
TRANSCRIPTS = "transcripts.jsonl"
MEASUREMENT_FILE = "measurement.json"
CONFIG_FILE = "config.json"  # every option as requested
ENGINE_LOG, ENGINE_LOGS = "engine.log", "engine*.log"  # several engines write engine-1.log, engine-2.log, …


@dataclasses.dataclass(frozen=True, slots=True)
class _JournalHeader:
    """The content of journal.json; a renamed or copied directory keeps the `id` of its bundle."""

    schema: str
    id: BundleId
    process: str
    run_id: str | None
    params: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class _Measured:
    """The content of measurement.json; its passes have no results, and `results` is the number in the journal."""

    measurement: Measurement
    results: int
    info: RunInfo
    origin: Origin
    started_ms: Milliseconds
    ended_ms: Milliseconds


@dataclasses.dataclass(frozen=True, slots=True)
class Recording:
    """A complete measurement in its partial directory; the passes of `measured` have their results here."""

    directory: Path
    id: str
    config: BenchmarkConfig
    measured: _Measured


class Journal:
    """A context manager around one measurement, which appends each result to a file.

    A journal without results is removed at the end, except after an EngineError, because it holds the engine's log.
    """

    def __init__(self, config: BenchmarkConfig, origin: Origin, environment: str) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        results_dir = Path(config.results_dir)
        self.config, self.origin, self.finished = config, origin, 0
        self.id = f"{stamp}-{config.digest}-{secrets.token_hex(4)}"
        self.directory = results_dir / f"{self.id}{PARTIAL}"
        self.artifacts, self.transcripts = self.directory / ARTIFACTS, self.directory / TRANSCRIPTS
        header = _JournalHeader(SCHEMA, self.id, str(ProcessId.this() or ""), origin.run_id, config.as_params())
        try:
            results_dir.mkdir(parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700)
            self.artifacts.mkdir()
            (self.artifacts / "environment.txt").write_text(environment, encoding="utf-8")
            write_atomically(self.artifacts / CONFIG_FILE, config.as_params())
            write_atomically(self.directory / JOURNAL_FILE, dataclasses.asdict(header))
            self._file = os.open(self.transcripts, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with contextlib.suppress(OSError):  # a network file system may have no locks
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # excludes an upload during the measurement
        except OSError as error:
            raise BundleError(f"results_dir={results_dir} cannot be written: {error}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
        if not self.finished and not isinstance(error, EngineError):
            shutil.rmtree(self.directory, ignore_errors=True)

    def append(self, result: UtteranceResult) -> None:
        """Append one line with one write, so that a kill can damage only the last line.

        Raises:
            BundleError: the disk is full, or the directory was removed.
        """
        self._require_directory()
        line = json.dumps(dataclasses.asdict(result)).encode() + b"\n"
        try:
            written = os.write(self._file, line)
            if written < len(line):  # the disk is almost full; the second write raises the error
                os.write(self._file, line[written:])
        except OSError as error:
            raise _write_error(self.directory, error) from error
        self.finished += 1

    def measured(self, measurement: Measurement, info: RunInfo, started_ms: int, ended_ms: int) -> Recording:
        """Write measurement.json at the end of the timed region; times are in milliseconds since 1970.

        Raises:
            BundleError: the disk is full, or the directory was removed.
        """
        self._require_directory()
        passes = tuple(dataclasses.replace(each, results=()) for each in measurement.passes)
        measured = _Measured(measurement, self.finished, info, self.origin, started_ms, ended_ms)
        stored = dataclasses.replace(measured, measurement=dataclasses.replace(measurement, passes=passes))
        try:
            os.fsync(self._file)
            write_atomically(self.directory / MEASUREMENT_FILE, dataclasses.asdict(stored))
        except OSError as error:
            raise _write_error(self.directory, error) from error
        return Recording(self.directory, self.id, self.config, measured)

    def _require_directory(self) -> None:
        """Raise if the file was removed, because a write to it would succeed."""
        if not os.fstat(self._file).st_nlink and not self.transcripts.exists():
            raise BundleError(
                f"{self.directory} was removed during the measurement, so its transcripts are lost. Measure again with "
                "a results_dir that is not cleared."
            )


def finish(recording: Recording, listener: Listener, audio_of: Callable[[str], Samples] | None = None) -> Bundle:
    """Score a measurement and write its bundle, then add samples and plots.

    Args:
        audio_of: returns an utterance's samples at 16 kHz by its id; if it is None, no samples are written.

    Raises:
        BundleError: the bundle cannot be written; an upload can complete it later.
    """
    config, measured, artifacts = recording.config, recording.measured, recording.directory / ARTIFACTS
    median = measured.measurement.median
    results = tuple(each for each in median.results if config.corpus_copies == 1 or not is_copy(each.utt_id))
    scored = _score(config, results, listener)
    results = scored.results if scored else results
    times = {"started_ms": measured.started_ms, "ended_ms": measured.ended_ms}
    contents = run_data(config, measured.info, measured.measurement, scored, **times)
    try:
        artifacts.mkdir(exist_ok=True)
        artifact_sizes(artifacts)  # refuses links
        for log in artifacts.glob(ENGINE_LOGS):
            redact_file(log, os.environ)
        (artifacts / TABLE).write_text(json.dumps(transcript_table(results), ensure_ascii=False), encoding="utf-8")
        (artifacts / "summary.md").write_text(contents.description, encoding="utf-8")
        bundle = write_bundle(recording.directory, recording.id, contents, measured.origin)
    except OSError as error:
        raise _write_error(recording.directory, error) from error
    if config.print_transcripts or config.corpus == "demo":
        listener.show(scored or results)
    bundle = _with_extra(bundle, PLOTS, lambda directory: write_plots(directory, median, scored), listener)
    if audio_of is None:
        return bundle
    normalizer = scored.normalizer if scored else None
    return _with_extra(
        bundle,
        SAMPLES,
        lambda directory: write_samples(directory, results, audio_of, config.seed, normalizer),
        listener,
    )


def write_bundle(directory: Path, bundle_id: str, contents: RunData, origin: Origin) -> Bundle:
    """Write bundle.json into a partial directory, sync every file, and rename the directory to its final name.

    Raises:
        OSError: the disk is full; the directory keeps its name.
        BundleError: a file is a link or another special file.
    """
    final = directory.with_name(directory.name.removesuffix(PARTIAL))
    write_run_data(directory, bundle_id, contents, origin)
    files = [directory / name for name in artifact_sizes(directory)]
    for path in sorted({directory, *files, *(file.parent for file in files)}):
        sync(path)
    directory.rename(final)
    sync(final.parent)
    return Bundle(final, bundle_id, contents, origin)


def _with_extra(bundle: Bundle, name: str, write: Callable[[Path], None], listener: Listener) -> Bundle:
    """Add a directory of artifacts to a bundle; if that fails, add a warning instead."""
    directory = bundle.artifacts / name
    try:
        write(directory)
    except Exception as error:  # the result is complete without it
        shutil.rmtree(directory, ignore_errors=True)
        warning = f"{name}/ could not be written ({type(error).__name__}: {shortened(error)})"
        listener.warning(warning)
        bundle = dataclasses.replace(bundle, contents=bundle.contents.with_warning(warning))
        with contextlib.suppress(OSError):  # the returned bundle has the warning, which is logged to the run
            write_run_data(bundle.directory, bundle.id, bundle.contents, bundle.origin)
    return bundle


def _score(config: BenchmarkConfig, results: tuple[UtteranceResult, ...], listener: Listener) -> Score | None:
    """The score, or None after a message if the weights are random or the corpus has no references."""
    if config.random_weights:
        listener.info("WER is not measured, because the weights are random (load_format=dummy).")
        return None
    if any(each.reference is None for each in results):
        listener.info(f"WER is not measured, because {config.corpus} has no reference transcripts.")
        return None
    return score(results, config.language)


def read_journal(directory: Path) -> tuple[UtteranceResult, ...]:
    """The finished results of a measurement, without an incomplete last line.

    Raises:
        BundleError: the file is absent or damaged.
    """
    with _reading(directory, TRANSCRIPTS, "is not the journal of a measurement"):
        lines = read_own(directory / TRANSCRIPTS).split(b"\n")[:-1]
        return tuple(read_json(UtteranceResult, line) for line in lines)


def read_recording(directory: Path) -> Recording:
    """A measurement that ended before its bundle was written.

    Raises:
        BundleError: it was interrupted in the timed region, transcripts are missing, or its files are damaged.
    """
    header, results = _read_header(directory), read_journal(directory)
    with _reading(directory, MEASUREMENT_FILE, "was not measured to its end"):
        measured = read_json(_Measured, read_own(directory / MEASUREMENT_FILE))
    try:
        config = BenchmarkConfig.from_params(header.params)
    except ConfigError as error:
        raise BundleError(f"{directory} holds an option that is not allowed: {error}") from error
    by_key = {(each.repeat, each.utt_id): each for each in results}
    if len(by_key) < measured.results:
        raise BundleError(f"{directory} lacks {measured.results - len(by_key)} of {measured.results} transcripts.")
    ordered = [by_key[key] for key in sorted(by_key)]  # a corpus is sorted by utterance id
    passes = tuple(
        dataclasses.replace(timed, results=tuple(each for each in ordered if each.repeat == repeat))
        for repeat, timed in enumerate(measured.measurement.passes)
    )
    measurement = dataclasses.replace(measured.measurement, passes=passes)
    return Recording(directory, header.id, config, dataclasses.replace(measured, measurement=measurement))


def complete(directory: Path, listener: Listener) -> Bundle:
    """Finish a measurement whose process has ended; it has no samples, because the audio may have changed.

    Raises:
        BundleError: see `read_recording` and `finish`; or another process measures or completes it.
    """
    if not directory.name.endswith(PARTIAL):
        raise BundleError(f"{directory} is not an unfinished measurement.")
    with locked(directory, TRANSCRIPTS):
        return finish(read_recording(directory), listener)


def interrupted_measurements(results_dir: Path) -> dict[Path, int]:
    """The readable journals of dead processes of this host, oldest first, with their numbers of results (not 0)."""
    here, found = ProcessId.this(), {}
    for directory in sorted(results_dir.glob(f"*{PARTIAL}")):
        with contextlib.suppress(BundleError):
            process = ProcessId.parse(_read_header(directory).process)
            if here and process and process.is_dead(here) and (results := read_journal(directory)):
                found[directory] = len(results)
    return found


def _read_header(directory: Path) -> _JournalHeader:
    with _reading(directory, JOURNAL_FILE, "is not the journal of a measurement"):
        return read_json(_JournalHeader, read_own(directory / JOURNAL_FILE))


@contextlib.contextmanager
def _reading(directory: Path, name: str, fault: str) -> Iterator[None]:
    """Turn an error while a file is read into `BundleError("{directory} {fault} …")`."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise BundleError(f"{directory} {fault} ({name}: {shortened(error)}).") from error


def _write_error(directory: Path, error: OSError) -> BundleError:
    remedy = "Free some space, or choose another results_dir."
    if (directory / MEASUREMENT_FILE).exists():
        remedy = f"Free some space, then complete the result: {upload_command(directory)}"
    return BundleError(
        f"{directory}: the result cannot be written ({error.strerror or error}). Finished transcripts are in "
        f"{TRANSCRIPTS} there. {remedy}"
    )
