"""Recording of one measurement on local disk.

    results/20261122T101500-1a2b3c4d5e6f7081-9f3a61c2.partial/
        transcripts.jsonl   every result of every repeat, appended when it is finished; locked by the process
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.corpus.audio import Samples
from whisperbench.corpus.corpus import is_copy
from whisperbench.engines.base import EngineInfo
from whisperbench.errors import BundleError, ConfigError, EngineError
from whisperbench.files import read_json, read_own, sync, write_atomically
from whisperbench.measure.result import UtteranceResult
from whisperbench.measure.score import Score, score
from whisperbench.measure.timing import Measurement
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
)
from whisperbench.results.names import WARNINGS
from whisperbench.results.plots import PLOTS, write_plots
from whisperbench.results.run_data import run_data
from whisperbench.results.run_info import Milliseconds, RunInfo
from whisperbench.results.samples import SAMPLES, write_samples
from whisperbench.results.transcripts import TABLE, transcript_table
from whisperbench.text import redact_file, shortened

TRANSCRIPTS = "transcripts.jsonl"
MEASUREMENT_FILE = "measurement.json"
CONFIG_FILE = "config.json"  # every option as requested
ENGINE_LOG, ENGINE_LOGS = "engine.log", "engine*.log"  # several engines write engine-1.log, engine-2.log, …


@dataclasses.dataclass(frozen=True, slots=True)
class Recording:
    """A complete measurement, and its partial directory; a renamed or copied directory keeps the `id`.

    measurement.json has all fields except `directory` and the results of the passes, which are in transcripts.jsonl;
    `results` is their number there.
    """

    id: BundleId
    origin: Origin
    info: RunInfo
    engine: EngineInfo
    measurement: Measurement
    results: int
    started_ms: Milliseconds
    ended_ms: Milliseconds
    directory: Path = Path()


class Journal:
    """A context manager around one measurement, which appends each result to a file and reports it after an error.

    A journal without results is removed at the end, except after an EngineError, because it holds the engine's log.
    """

    def __init__(self, config: BenchmarkConfig, origin: Origin, environment: str, listener: Listener) -> None:
        self.origin, self.listener, self.finished = origin, listener, 0
        self.started_ms, self.started = time.time_ns() // 1_000_000, time.perf_counter()
        self.id = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{config.digest}-{secrets.token_hex(4)}"
        self.directory = Path(config.results_dir, f"{self.id}{PARTIAL}")
        self.artifacts, self.transcripts = self.directory / ARTIFACTS, self.directory / TRANSCRIPTS
        try:
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700)
            self.artifacts.mkdir()
            (self.artifacts / "environment.txt").write_text(environment, encoding="utf-8")
            write_atomically(self.artifacts / CONFIG_FILE, config.as_params())
            self._file = os.open(self.transcripts, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with contextlib.suppress(OSError):  # a network file system may have no locks
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # excludes an upload during the measurement
        except OSError as error:
            raise BundleError(f"results_dir={config.results_dir} cannot be written: {error}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        os.close(self._file)
        if error and self.finished:
            self.listener.info(f"{self.finished} finished transcripts are saved in {self.transcripts}")
        if not self.finished and not isinstance(error, EngineError):
            shutil.rmtree(self.directory, ignore_errors=True)

    def append(self, result: UtteranceResult) -> None:
        """Append one line with one write, so that a kill can damage only the last line.

        Raises:
            BundleError: the disk is full.
        """
        line = json.dumps(dataclasses.asdict(result)).encode() + b"\n"
        with _writing(self.directory):
            written = os.write(self._file, line)
            if written < len(line):  # the disk is almost full; the second write raises the error
                os.write(self._file, line[written:])
        self.finished += 1

    def measured(self, info: RunInfo, engine: EngineInfo, measurement: Measurement) -> Recording:
        """Write measurement.json at the end of the timed region.

        Raises:
            BundleError: the disk is full, or the directory was removed.
        """
        # A change of the system time must not place the end of the run before its start.
        ended_ms = self.started_ms + round(1000 * (time.perf_counter() - self.started))
        recording = Recording(
            id=self.id,
            origin=self.origin,
            info=info,
            engine=engine,
            measurement=measurement,
            results=self.finished,
            started_ms=self.started_ms,
            ended_ms=ended_ms,
            directory=self.directory,
        )
        body = dataclasses.asdict(_with_results(recording, lambda _repeat: ()))
        del body["directory"]
        with _writing(self.directory):
            os.fsync(self._file)
            write_atomically(self.directory / MEASUREMENT_FILE, body)
        return recording


def finish(recording: Recording, listener: Listener, audio_of: Callable[[str], Samples] | None = None) -> Bundle:
    """Score a measurement and write its bundle, then add plots and samples.

    Args:
        audio_of: returns an utterance's samples at 16 kHz by its id; if it is None, no samples are written.

    Raises:
        BundleError: the bundle cannot be written; an upload can complete it later.
    """
    config, median = recording.info.config, recording.measurement.median
    artifacts = recording.directory / ARTIFACTS
    results = tuple(each for each in median.results if config.corpus_copies == 1 or not is_copy(each.utt_id))
    scored = _score(config, results, listener)
    results = scored.results if scored else results
    contents = run_data(recording.info, recording.engine, recording.measurement, scored)
    contents = dataclasses.replace(contents, started_ms=recording.started_ms, ended_ms=recording.ended_ms)
    bundle = Bundle(id=recording.id, origin=recording.origin, contents=contents, directory=recording.directory)
    with _writing(recording.directory):
        artifacts.mkdir(exist_ok=True)
        artifact_sizes(artifacts)  # refuses links
        for log in artifacts.glob(ENGINE_LOGS):
            redact_file(log, os.environ)
        (artifacts / TABLE).write_text(json.dumps(transcript_table(results), ensure_ascii=False), encoding="utf-8")
        (artifacts / "summary.md").write_text(contents.description, encoding="utf-8")
        bundle = write_bundle(bundle)
    if config.print_transcripts or config.corpus == "demo":
        listener.show(scored or results)
    extras: dict[str, Callable[[Path], None]] = {PLOTS: lambda folder: write_plots(folder, median, scored)}
    if audio_of:
        normalizer = scored.normalizer if scored else None
        extras[SAMPLES] = lambda folder: write_samples(folder, results, audio_of, config.seed, normalizer)
    for name, write in extras.items():
        bundle = _with_extra(bundle, name, write, listener)
    return bundle


def write_bundle(partial: Bundle) -> Bundle:
    """Write bundle.json into a partial directory, sync every file, and rename the directory to its final name.

    Raises:
        OSError: the disk is full; the directory keeps its name.
        BundleError: a file is a link or another special file.
    """
    directory = partial.directory
    partial.write()
    files = [directory / name for name in artifact_sizes(directory)]
    for path in sorted({directory, *files, *(file.parent for file in files)}):
        sync(path)
    final = directory.rename(directory.with_name(directory.name.removesuffix(PARTIAL)))
    sync(final.parent)
    return dataclasses.replace(partial, directory=final)


def _with_extra(bundle: Bundle, name: str, write: Callable[[Path], None], listener: Listener) -> Bundle:
    """Add a directory of artifacts to a bundle; if that fails, add a warning instead."""
    directory = bundle.artifacts / name
    try:
        write(directory)
    except Exception as error:  # the result is complete without it
        shutil.rmtree(directory, ignore_errors=True)
        warning = f"{name}/ could not be written ({type(error).__name__}: {shortened(error)})"
        listener.warning(warning)
        contents = bundle.contents
        warnings = "; ".join(filter(None, [contents.tags.get(WARNINGS), warning]))
        contents = dataclasses.replace(contents, tags={**contents.tags, WARNINGS: warnings})
        bundle = dataclasses.replace(bundle, contents=contents)
        with contextlib.suppress(OSError):  # the returned bundle has the warning, which is logged to the run
            bundle.write()
    return bundle


def _score(config: BenchmarkConfig, results: tuple[UtteranceResult, ...], listener: Listener) -> Score | None:
    """The score, or None after a message if the weights are random or the corpus has no references."""
    if config.random_weights:
        reason = "the weights are random (load_format=dummy)"
    elif any(each.reference is None for each in results):
        reason = f"{config.corpus} has no reference transcripts"
    else:
        return score(results, config.language)
    listener.info(f"WER is not measured, because {reason}.")
    return None


def read_journal(directory: Path) -> tuple[UtteranceResult, ...]:
    """The finished results of a measurement, without an incomplete last line.

    Raises:
        BundleError: the file is absent or damaged.
    """
    with _reading(directory, TRANSCRIPTS, "is not the journal of a measurement"):
        lines = read_own(directory / TRANSCRIPTS).split(b"\n")[:-1]
        return tuple(read_json(UtteranceResult, line) for line in lines)


def complete(directory: Path, listener: Listener) -> Bundle:
    """Finish a measurement whose process has ended; it has no samples, because the audio may have changed.

    Raises:
        BundleError: it was interrupted in the timed region, transcripts are missing, its files are damaged, another
            process measures or completes it, or the bundle cannot be written.
    """
    with locked(directory, TRANSCRIPTS):
        with _reading(directory, MEASUREMENT_FILE, "was not measured to its end"):
            recording = read_json(Recording, read_own(directory / MEASUREMENT_FILE))
        by_key = {(each.repeat, each.utt_id): each for each in read_journal(directory)}
        if (missing := recording.results - len(by_key)) > 0:
            raise BundleError(f"{directory} lacks {missing} of {recording.results} transcripts.")
        ordered = [by_key[key] for key in sorted(by_key)]  # a corpus is sorted by utterance id
        recording = _with_results(recording, lambda repeat: tuple(each for each in ordered if each.repeat == repeat))
        return finish(dataclasses.replace(recording, directory=directory), listener)


def _with_results(recording: Recording, results: Callable[[int], tuple[UtteranceResult, ...]]) -> Recording:
    """A copy with other results, which `results` returns for each repeat."""
    measurement = recording.measurement
    passes = tuple(dataclasses.replace(each, results=results(i)) for i, each in enumerate(measurement.passes))
    return dataclasses.replace(recording, measurement=dataclasses.replace(measurement, passes=passes))


def interrupted_measurements(results_dir: Path) -> dict[Path, int]:
    """The readable journals that no process has locked, oldest first, with their numbers of results (not 0)."""
    found = {}
    for directory in sorted(results_dir.glob(f"*{PARTIAL}")):
        with contextlib.suppress(BundleError), locked(directory, TRANSCRIPTS):
            if results := read_journal(directory):
                found[directory] = len(results)
    return found


@contextlib.contextmanager
def _reading(directory: Path, name: str, fault: str) -> Iterator[None]:
    """Turn an error while a file is read into `BundleError("{directory} {fault} …")`."""
    try:
        yield
    except (OSError, ValueError, ConfigError) as error:
        raise BundleError(f"{directory} {fault} ({name}: {shortened(error)}).") from error


@contextlib.contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Turn an error while a file is written into a BundleError with the remedy."""
    try:
        yield
    except OSError as error:
        remedy = "Free some space, or choose another results_dir."
        if (directory / MEASUREMENT_FILE).exists():
            remedy = f"Free some space, then complete the result: {upload_command(directory)}"
        raise BundleError(
            f"{directory}: the result cannot be written ({error.strerror or error}). Finished transcripts are in "
            f"{TRANSCRIPTS} there. {remedy}"
        ) from error
