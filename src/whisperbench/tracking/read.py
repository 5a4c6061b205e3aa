"""Reading of benchmark runs from an MLflow tracking server, with their repeats, transcripts and audio samples."""

from __future__ import annotations

import datetime
import difflib
import hashlib
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from whisperbench.errors import ComparisonError, ConfigError
from whisperbench.files import read_own
from whisperbench.results.keys import fields_of
from whisperbench.results.names import KIND, REPEATS, is_possible
from whisperbench.results.record import RunRecord
from whisperbench.results.run_info import END_OF_TIME
from whisperbench.results.samples import SAMPLES, file_suffix
from whisperbench.results.transcripts import TABLE, StoredTranscripts, read_table
from whisperbench.tracking.client import search_experiments, search_runs, tracking_errors
from whisperbench.tracking.runs import BUNDLE_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

THREADS = 8
MAX_SAMPLES, MAX_SAMPLE_BYTES = 10, 5_000_000  # per HTML page; a sample has at most 30 s, which are 960 kB
ID_DIGITS = 32
FINISHED_BENCHMARKS = f"attributes.status = 'FINISHED' and tags.`{KIND}` = 'benchmark'"


def find_runs(client: MlflowClient, experiments: str | None, filter_text: str | None) -> list[RunRecord]:
    """Finished benchmark runs of experiments (names with commas between them, None = all) with the rates of repeats.

    A bundle that was uploaded twice counts once.

    Raises:
        ComparisonError: an experiment does not exist.
        ConfigError: MLflow rejects the filter.
        TrackingError: the server cannot be reached or refuses a request.
    """
    names = _experiments(client)
    if experiments is not None:
        wanted = names_in(experiments, sorted(names.values()))
        names = {id_: name for id_, name in names.items() if name in wanted}
    condition = f"{FINISHED_BENCHMARKS} and {filter_text}" if filter_text else FINISHED_BENCHMARKS
    found = _search(client, list(names), condition, filter_text)  # the newest first, so that the oldest copy is kept
    runs = {run.data.tags.get(BUNDLE_TAG, run.info.run_id): run for run in found}
    return [_record(run, names) for run in runs.values()]


def get_runs(client: MlflowClient, run_ids: Iterable[str]) -> list[RunRecord]:
    """Finished benchmark runs by id or unique prefix of an id, with the rates of their repeats.

    Raises:
        ComparisonError: a run does not exist, or is not a finished benchmark run.
        TrackingError: the server cannot be reached or refuses a request.
    """
    from mlflow.exceptions import MlflowException

    names, records = _experiments(client), []
    for run_id in (full_id(client, each) for each in run_ids):
        with tracking_errors(client, "return the run"):
            try:
                run = client.get_run(run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                raise ComparisonError(f"Run {run_id} does not exist on this tracking server.") from error
        kind, status = run.data.tags.get(KIND, "none"), run.info.status
        if kind != "benchmark" or status != "FINISHED":
            raise ComparisonError(
                f"Run {run_id} is not a finished benchmark run. Its kind is {kind} and its status {status}."
            )
        records.append(_record(run, names))
    return records


def read_transcripts(
    client: MlflowClient, run_ids: Iterable[str], cache: Path, advance: Callable[[], None] = lambda: None
) -> dict[str, StoredTranscripts | None]:
    """The transcripts of each run, or None if they are absent or damaged; `advance` is called after each run.

    They are downloaded in parallel and stored in `cache`, because the transcripts of a finished run do not change.
    Servers may have runs with the same id, so each has a directory of its own.

    Raises:
        TrackingError: the server cannot be reached or refuses a request.
    """
    cache = _cache_of(client, cache)
    wanted = list(dict.fromkeys(run_ids))

    def read(run_id: str) -> StoredTranscripts | None:
        kept = cache / f"{quote(run_id, safe='')}.json"
        if not kept.exists() and any(artifact.path == TABLE for artifact in client.list_artifacts(run_id)):
            _download(client, run_id, TABLE, kept)
        found = read_table(read_own(kept).decode("utf-8", errors="replace")) if kept.exists() else None
        advance()
        return found

    with tracking_errors(client, "return the transcripts"), ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(wanted, pool.map(read, wanted), strict=True))


def read_samples(client: MlflowClient, run_ids: Iterable[str], utt_ids: Iterable[str], cache: Path) -> dict[str, bytes]:
    """WAV files by utterance id, for at most MAX_SAMPLES of `utt_ids` whose audio is stored with one of the runs.

    Samples that would exceed a total of MAX_SAMPLE_BYTES are omitted.

    Raises:
        TrackingError: the server cannot be reached or refuses a request.
    """
    cache = _cache_of(client, cache)
    found: dict[str, bytes] = {}
    with tracking_errors(client, "return the samples"):
        samples = {
            artifact.path.rpartition("/")[2].partition("_")[2]: (run_id, artifact)
            for run_id in run_ids
            for artifact in client.list_artifacts(run_id, SAMPLES)
        }
        remaining = MAX_SAMPLE_BYTES
        for utt_id in utt_ids:
            run_id, artifact = samples.get(file_suffix(utt_id), ("", None))
            if artifact is None or (artifact.file_size or 0) > remaining or len(found) == MAX_SAMPLES:
                continue
            kept = cache / f"{quote(run_id, safe='')}-{artifact.path.rpartition('/')[2]}"
            if not kept.exists():
                _download(client, run_id, artifact.path, kept)
            found[utt_id] = read_own(kept)
            remaining -= len(found[utt_id])
    return found


def full_id(client: MlflowClient, prefix: str) -> str:
    """The id of the run whose id begins with `prefix`.

    Raises:
        ComparisonError: no id or several ids begin with it.
    """
    if len(prefix) == ID_DIGITS:
        return prefix
    found = _search(client, list(_experiments(client)), f"attributes.run_id LIKE '{prefix}%'", None)
    if len(found) != 1:
        ids = ", ".join(sorted(run.info.run_id for run in found)[:10])
        raise ComparisonError(
            f"{prefix!r} does not identify a run, because "
            + (f"{len(found)} ids begin with it: {ids}." if found else "no id on this tracking server begins with it.")
        )
    return str(found[0].info.run_id)


def _experiments(client: MlflowClient) -> dict[str, str]:
    """Id to name of every experiment that is not deleted."""
    with tracking_errors(client, "list the experiments"):
        return {e.experiment_id: e.name for e in search_experiments(client)}


def names_in(text: str, existing: Sequence[str]) -> list[str]:
    """The names of experiments in a list like `team, asr`; a name may contain commas.

    Raises:
        ComparisonError: an experiment does not exist.
    """
    parts, found = text.split(","), []
    while parts:
        joined = {count: ",".join(parts[:count]).strip() for count in range(len(parts), 0, -1)}
        count = next((count for count, name in joined.items() if name in existing), 1)
        if (name := joined[count]) and name not in existing:
            near = difflib.get_close_matches(name, existing, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Choose from: {', '.join(existing[:10])}."
            raise ComparisonError(f"Experiment {name!r} does not exist on this tracking server. {hint}")
        found.append(name)
        del parts[:count]
    return found


def _search(client: MlflowClient, experiment_ids: list[str], condition: str, filter_text: str | None) -> list[Any]:
    from mlflow.exceptions import MlflowException

    with tracking_errors(client, "search the runs"):
        try:
            return search_runs(client, experiment_ids, condition)
        except MlflowException as error:
            if filter_text is None or error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            reason = str(error).splitlines()[0].removeprefix("INVALID_PARAMETER_VALUE: ")
            # MLflow prints a Python set with several spellings of each key.
            reason = re.sub(r"'\{(.*)\}'", lambda keys: ", ".join(_keys(keys[1])), reason)
            raise ConfigError(f"filter={filter_text!r} is not allowed: {reason}") from error


def _keys(text: str) -> list[str]:
    return sorted({key.lower().replace(" ", "_") for key in re.findall("'([^']+)'", text)})


def _record(run: Any, experiments: Mapping[str, str]) -> RunRecord:
    info, data = run.info, run.data
    return RunRecord(
        run_id=info.run_id,
        experiment_id=info.experiment_id,
        experiment=experiments.get(info.experiment_id, info.experiment_id),
        name=info.run_name or info.run_id,
        user=data.tags.get("mlflow.user") or info.user_id or "unknown",
        start_time=_date(info.start_time or 0),
        params=data.params,
        metrics=data.metrics,
        tags=data.tags,
        history=_repeats(data.tags.get(REPEATS)),
    )


def _date(milliseconds: int) -> datetime.datetime:
    """A time of MLflow; the nearest date if another client has set one before 1970 or after the year 9999."""
    return datetime.datetime.fromtimestamp(min(max(milliseconds, 0), END_OF_TIME - 1) / 1000, datetime.UTC)


def _repeats(tag: str | None) -> dict[str, tuple[float, ...]]:
    """The rates of all repeats by metric, from the tag REPEATS; none if it is damaged (`RunRecord.damaged`)."""
    try:
        found = {name: tuple(map(float, values.split(","))) for name, values in fields_of(tag or "").items() if name}
    except ValueError:
        return {}
    possible = all(is_possible(name, value) for name, values in found.items() for value in values)
    return found if possible else {}


def _cache_of(client: MlflowClient, cache: Path) -> Path:
    """The directory of a server in `cache`, which is created.

    Raises:
        ConfigError: it cannot be created.
    """
    directory = cache / hashlib.sha256(str(client.tracking_uri).encode()).hexdigest()[:16]
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"The cache {directory} cannot be created ({error.strerror}). Set XDG_CACHE_HOME to another directory."
        ) from error
    return directory


def _download(client: MlflowClient, run_id: str, path: str, target: Path) -> None:
    """Download an artifact to `target` atomically."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        Path(client.download_artifacts(run_id, path, folder)).replace(target)
