"""Runs to compare, made up: as records, and logged to a real MLflow store as the benchmark flow would log them."""

from __future__ import annotations

import dataclasses
import datetime
import fcntl
import functools
import json
import shutil
import sqlite3
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.measure.result import ErrorCounts, UtteranceResult
from whisperbench.results.keys import key
from whisperbench.results.names import ACCURACY_KEY, CONFIG_DIGEST, KIND, OPTIONS_TAG, SPEED_KEY
from whisperbench.results.record import RunRecord
from whisperbench.results.run_data import identifying, option_params
from whisperbench.results.transcripts import transcript_table
from whisperbench.tracking.runs import DEFAULT_EXPERIMENT, TABLE_TAG, log_now

H100 = "NVIDIA H100 80GB HBM3"
MONDAY = datetime.datetime(2026, 11, 2, 9, tzinfo=datetime.UTC)


def run_of(
    config: BenchmarkConfig | None = None,
    *,
    gpu: str = H100,
    wer: float | None = 2.5,
    rate: float | None = 40.0,
    day: int = 0,
    name: str | None = None,
    user: str = "ann",
    dataset: str = "d1" * 16,
    normalizer: str = "whisper-english/0.1.15",
    interval: tuple[float, float] | None = None,
    metrics: Mapping[str, float] | None = None,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> RunRecord:
    """One finished benchmark run; None = not measured."""
    config = config or BenchmarkConfig(model="large-v3")
    limits = interval or (None if wer is None else (wer * 0.9, wer * 1.1))
    data = {"dataset": dataset, "limit": config.as_params()["limit"]}
    weights = "random" if config.random_weights else "real"
    figures = {
        "wer": wer,
        "wer_ci_low": limits[0] if limits else None,
        "wer_ci_high": limits[1] if limits else None,
        "reqs_per_sec": rate,
        "rtfx": None if rate is None else rate * 7.4,
        "utterances": 2620.0,
        **(metrics or {}),
    }
    return RunRecord(
        run_id=uuid.uuid4().hex,
        experiment_id="1",
        experiment="speech",
        name=name or f"{config.model}-{config.kv_cache_dtype}-{config.max_num_seqs}",
        user=user,
        start_time=MONDAY + datetime.timedelta(days=day),
        params={
            **option_params(config, {"dtype": "bfloat16", "split": config.split, "batch_size": "16"}),
            "model_id": f"openai/whisper-{config.model}",
            "model_revision_resolved": "4fdc",
            "gpu_name": gpu,
            "gpu_count": "1",
            "engine_version": "0.32.0",
            **(params or {}),
        },
        metrics={name: value for name, value in figures.items() if value is not None},
        tags={
            KIND: "benchmark",
            ACCURACY_KEY: key(**data, normalizer=normalizer, language="en", long_audio=config.long_audio),
            SPEED_KEY: key(**data, long_audio=config.long_audio, weights=weights, gpu=gpu, gpu_count=1, schema="1"),
            CONFIG_DIGEST: config.digest,
            OPTIONS_TAG: key(**identifying(config)),
            **(tags or {}),
        },
    )


def without_tag(run: RunRecord, tag: str) -> RunRecord:
    return dataclasses.replace(run, tags={k: v for k, v in run.tags.items() if k != tag})


def table_of(rows: Iterable[Sequence[Any]]) -> str:
    """transcripts.json from (utt_id, speaker, reference, hypothesis, errors, words)."""
    results = [
        UtteranceResult(
            utt_id=utt_id,
            hypothesis=hypothesis,
            tokens=2,
            seconds=7.4,
            windows=1,
            reference=reference,
            speaker=speaker,
            counts=None if words is None else ErrorCounts(errors, 0, 0, words),
        )
        for utt_id, speaker, reference, hypothesis, errors, words in rows
    ]
    return json.dumps(transcript_table(results))


def spoken(errors: Sequence[int], *, words: int = 20, per_speaker: int = 4, said: str = "a word") -> str:
    """transcripts.json of len(errors) utterances, that many errors each."""
    reference = " ".join(["word"] * words)
    return table_of((f"u{i:04d}", f"s{i // per_speaker}", reference, said, e, words) for i, e in enumerate(errors))


def fresh_store(directory: Path, template: Path) -> str:
    """The address of a new SQLite store in `directory`, a copy of `template`; experiment 0 is the default one."""
    import mlflow

    with template.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers share a template
        if not template.exists():
            being_made = template.with_suffix(".new")
            mlflow.MlflowClient(f"sqlite:///{being_made}").search_experiments()
            being_made.rename(template)
    _read_newest_schema_once()
    shutil.copy(template, directory / "mlflow.db")
    with sqlite3.connect(directory / "mlflow.db") as database:
        database.execute(
            "UPDATE experiments SET name = ?, artifact_location = ?", (DEFAULT_EXPERIMENT, str(directory / "artifacts"))
        )
    return f"sqlite:///{directory / 'mlflow.db'}"


def _read_newest_schema_once() -> None:
    """Each store that is opened is compared with the newest of MLflow's migrations, about 60 files: always the same."""
    from mlflow.store.db import utils

    if not hasattr(utils._get_latest_schema_revision, "cache_info"):
        utils._get_latest_schema_revision = functools.cache(utils._get_latest_schema_revision)


def log(client: Any, run: RunRecord, transcripts: str | None = None, *, status: str = "FINISHED") -> str:
    """Log a record as one run of experiment `run.experiment`; its id on the server."""
    found = client.get_experiment_by_name(run.experiment)
    address = str(client.tracking_uri)  # beside a SQLite store, not in the working directory
    place = str(Path(address.removeprefix("sqlite:///")).parent / "artifacts") if address.startswith("sqlite") else None
    experiment_id = found.experiment_id if found else client.create_experiment(run.experiment, place)
    started = int(run.start_time.timestamp() * 1000)
    tags = {**run.tags, "mlflow.user": run.user, TABLE_TAG: '[{"path": "transcripts.json", "type": "table"}]'}
    run_id: str = client.create_run(experiment_id, start_time=started, run_name=run.name).info.run_id
    log_now(client, run_id, metrics=run.metrics, params=run.params, tags=tags, at_ms=started)
    if transcripts is not None:
        client.log_text(run_id, transcripts, "transcripts.json")
    client.set_terminated(run_id, status)
    return run_id


def all_runs(client: Any, condition: str = "") -> list[Any]:
    """Runs of every experiment that meet a condition."""
    experiments = [e.experiment_id for e in client.search_experiments()]
    return list(client.search_runs(experiments, condition, max_results=1000))
