"""Reading of benchmark runs from an MLflow tracking server, with their repeats, transcripts and audio samples."""

from __future__ import annotations

import datetime
import difflib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from whisperbench.errors import ComparisonError, ConfigError, TrackingError
from whisperbench.files import read_own
from whisperbench.results.keys import fields_of
from whisperbench.results.names import KIND, REPEATS, is_possible
from whisperbench.results.record import RunRecord
from whisperbench.results.run_info import END_OF_TIME
from whisperbench.results.samples import SAMPLES, file_suffix
from whisperbench.results.transcripts import TABLE, StoredTranscripts, read_table
from whisperbench.tracking.client import Client, error_code, search_experiments, search_runs
from whisperbench.tracking.runs import BUNDLE_TAG

THREADS = 8
MAX_SAMPLES, MAX_SAMPLE_BYTES = 10, 5_000_000  # per HTML page; a sample has at most 30 s, which are 960 kB
MIN_FREE_BYTES = 16 << 20  # the transcripts of 30,000 utterances
FINISHED_BENCHMARKS = f"attributes.status = 'FINISHED' and tags.`{KIND}` = 'benchmark'"


def find_runs(client: Client, experiments: str | None, filter_text: str | None) -> list[RunRecord]:
    """Finished benchmark runs of experiments (names with commas between them, None = all) with the rates of repeats.

    A bundle that was uploaded twice counts once.

    Raises:
        ComparisonError: an experiment does not exist.
        ConfigError: MLflow rejects the filter.
    """
    names = _experiments(client)
    if experiments is not None:
        wanted = names_in(experiments, names.values())
        names = {id_: name for id_, name in names.items() if name in wanted}
    found = _search(client, names, filter_text)  # the newest first, so that the oldest copy is kept
    runs = {run.data.tags.get(BUNDLE_TAG, run.info.run_id): run for run in found}
    return [_record(run, names) for run in runs.values()]


def get_runs(client: Client, run_ids: Iterable[str]) -> list[RunRecord]:
    """Finished benchmark runs by id or unique prefix of an id, with the rates of their repeats.

    Raises:
        ComparisonError: no finished benchmark run has the id, or several ids begin with it.
    """
    names, records = _experiments(client), []
    for run_id in run_ids:
        found = [_record(run, names) for run in _search(client, names, f"attributes.run_id LIKE '{run_id}%'")]
        if not found:
            raise ComparisonError(f"No finished benchmark run on this tracking server has the id {run_id}.")
        if len(found) > 1:
            ids = ", ".join(sorted(run.run_id for run in found)[:10])
            raise ComparisonError(f"{len(found)} run ids begin with {run_id}: {ids}. Use more digits.")
        records += found
    return records


def finished_runs(client: Client, experiment_id: str) -> list[RunRecord]:
    """The finished benchmark runs of an experiment, the oldest first; those of a sweep have the tag PARENT_TAG."""
    names = _experiments(client)
    return [_record(run, names) for run in reversed(_search(client, [experiment_id], None))]


def read_transcripts(
    client: Client, run_ids: Iterable[str], cache: Path, advance: Callable[[], None] = lambda: None
) -> dict[str, StoredTranscripts | None]:
    """The transcripts of each run, or None if they are absent or damaged; `advance` is called after each run.

    They are downloaded in parallel and stored in `cache`, because the transcripts of a finished run do not change.

    Raises:
        ConfigError: the cache cannot be written.
    """
    cache, wanted = cache / _name_of(client), list(dict.fromkeys(run_ids))

    def read(run_id: str) -> StoredTranscripts | None:
        kept, found = cache / f"{quote(run_id, safe='')}.json", None
        if kept.exists() or any(artifact.path == TABLE for artifact in client.list_artifacts(run_id)):
            found = read_table(_cached(client, run_id, TABLE, kept).decode("utf-8", errors="replace"))
        advance()
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(wanted, pool.map(read, wanted), strict=True))


def read_samples(client: Client, run_ids: Iterable[str], utt_ids: Iterable[str], cache: Path) -> dict[str, bytes]:
    """WAV files by utterance id, for at most MAX_SAMPLES of `utt_ids` whose audio is stored with one of the runs.

    Samples that would exceed a total of MAX_SAMPLE_BYTES are omitted.

    Raises:
        ConfigError: the cache cannot be written.
    """
    samples = {
        artifact.path.rpartition("/")[2].partition("_")[2]: (run_id, artifact)
        for run_id in run_ids
        for artifact in client.list_artifacts(run_id, SAMPLES)
    }
    found: dict[str, bytes] = {}
    remaining = MAX_SAMPLE_BYTES
    for utt_id in utt_ids:
        run_id, artifact = samples.get(file_suffix(utt_id), ("", None))
        if artifact is None or (artifact.file_size or 0) > remaining or len(found) == MAX_SAMPLES:
            continue
        kept = cache / _name_of(client) / f"{quote(run_id, safe='')}-{artifact.path.rpartition('/')[2]}"
        found[utt_id] = _cached(client, run_id, artifact.path, kept)
        remaining -= len(found[utt_id])
    return found


def names_in(text: str, existing: Iterable[str]) -> list[str]:
    """The names of experiments in a list like `team,asr`; a single name may contain commas.

    Raises:
        ComparisonError: an experiment does not exist.
    """
    existing = sorted(existing)
    names = [text] if text in existing else [name for part in text.split(",") if (name := part.strip())]
    for name in names:
        if name not in existing:
            near = ", ".join(difflib.get_close_matches(name, existing, n=10, cutoff=0))
            raise ComparisonError(f"Experiment {name!r} does not exist on this tracking server. Choose from: {near}.")
    return names


def _experiments(client: Client) -> dict[str, str]:
    """Id to name of every experiment that is not deleted."""
    return {each.experiment_id: each.name for each in search_experiments(client)}


def _search(client: Client, experiment_ids: Iterable[str], condition: str | None) -> list[Any]:
    """The finished benchmark runs that meet a filter of MLflow, the newest first."""
    narrowed = f" and {condition}" if condition else ""
    try:
        return search_runs(client, FINISHED_BENCHMARKS + narrowed, list(experiment_ids))
    except TrackingError as error:
        if error_code(error) != "INVALID_PARAMETER_VALUE":
            raise
        reason = str(error.__cause__).splitlines()[0].removeprefix("INVALID_PARAMETER_VALUE: ")
        raise ConfigError(f"filter={condition!r} is not allowed: {reason}") from error


def _record(run: Any, experiments: Mapping[str, str]) -> RunRecord:
    info, data = run.info, run.data
    # The nearest date if another client has set one before 1970 or after the year 9999.
    started_ms = min(max(info.start_time or 0, 0), END_OF_TIME - 1)
    return RunRecord(
        run_id=info.run_id,
        experiment_id=info.experiment_id,
        experiment=experiments[info.experiment_id],
        name=info.run_name or info.run_id,
        user=data.tags.get("mlflow.user") or info.user_id or "unknown",
        start_time=datetime.datetime.fromtimestamp(started_ms / 1000, datetime.UTC),
        params=data.params,
        metrics=data.metrics,
        tags=data.tags,
        history=_repeats(data.tags.get(REPEATS)),
        seconds=((info.end_time or 0) - (info.start_time or 0)) / 1000,
    )


def _repeats(tag: str | None) -> dict[str, tuple[float, ...]]:
    """The rates of all repeats by metric, from the tag REPEATS; none if it is damaged (`RunRecord.damaged`)."""
    try:
        found = {name: tuple(map(float, values.split(","))) for name, values in fields_of(tag or "").items() if name}
    except ValueError:
        return {}
    possible = all(is_possible(name, value) for name, values in found.items() for value in values)
    return found if possible else {}


def _name_of(client: Client) -> str:
    """The name of a server's directory in a cache, because servers may have runs with the same id."""
    return hashlib.sha256(str(client.tracking_uri).encode()).hexdigest()[:16]


def _cached(client: Client, run_id: str, path: str, kept: Path) -> bytes:
    """The content of an artifact, which is downloaded to the file `kept` the first time.

    Raises:
        ConfigError: the file cannot be written or read.
    """
    try:
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
                _download(client, run_id, path, folder).replace(kept)
        return read_own(kept)
    except OSError as error:
        raise ConfigError(
            f"The cache {kept.parent} cannot be used ({error.strerror}). Free some space, or set XDG_CACHE_HOME to "
            "another directory."
        ) from error


def _download(client: Client, run_id: str, path: str, folder: str) -> Path:
    """Download an artifact to a folder.

    Raises:
        OSError: the disk is full, which MLflow does not report.
    """
    try:
        return Path(client.download_artifacts(run_id, path, folder))
    except TrackingError:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, MIN_FREE_BYTES)
        raise
