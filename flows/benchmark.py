"""Measure one configuration: load, warm up, transcribe, score, log one run.

\b
  mlflow run . -P model=large-v3                          on a GPU machine
  mlflow run . -P model=demo -P corpus=demo               on any machine
  PYTHONPATH=src python -m flows.benchmark --model large-v3 --kv_cache_dtype fp8 --max_num_seqs 256

The last line on stdout is the result; progress goes to stderr.  Before anything is sent to the tracking
server, the whole result is on local disk in results_dir.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.terminal import console
from flows.terminal.command import errors_end_the_command, options_of
from whisperbench.engines.hardware import Hardware, free_cores
from whisperbench.engines.seam import StartEngine
from whisperbench.engines.settings import engine_settings
from whisperbench.engines.start import hardware_of_the_engine, require_engine_for, start_engine
from whisperbench.errors import CorpusError, EngineError, TrackingError
from whisperbench.files import cache_directory
from whisperbench.inputs.audio import load_audio
from whisperbench.inputs.checkpoint import resolve_model
from whisperbench.inputs.corpus import Corpus, load_corpus
from whisperbench.inputs.inspection import inspect_corpus
from whisperbench.measure import clock as measure
from whisperbench.measure.score import Score, score
from whisperbench.options import BenchmarkConfig
from whisperbench.results import bundle
from whisperbench.results import contents as record
from whisperbench.results.bundle import Origin
from whisperbench.results.environment import describe_environment, git_is_dirty
from whisperbench.results.journal import Journal, abandoned
from whisperbench.results.samples import write_samples
from whisperbench.supervise.orphans import no_orphans
from whisperbench.supervise.signals import signals_raise
from whisperbench.text import redact_file
from whisperbench.tracking import read as runs
from whisperbench.tracking import write as tracking
from whisperbench.tracking.stale import close_stale_runs
from whisperbench.tracking.tracked_run import TrackedRun, tracked_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROJECT = Path(__file__).resolve().parents[1]
CACHE = cache_directory()
ENGINE_LOG = "engine.log"


@click.command(help=__doc__)
@options_of(BenchmarkConfig)
@errors_end_the_command
def main(**options: Any) -> None:
    benchmark(BenchmarkConfig(**options))


def benchmark(config: BenchmarkConfig, start: StartEngine = start_engine) -> None:
    """Measure, keep the result on disk, and only then send it: whatever happens to the server, it can be sent later."""
    hardware = hardware_of_the_engine(os.environ.get("CUDA_VISIBLE_DEVICES"))
    report_partial_results(Path(config.results_dir))
    measured: list[bundle.Bundle] = []
    try:
        if config.offline:
            origin = Origin(run_id=os.environ.get("MLFLOW_RUN_ID"), tags=tracking.local_tags({}))
            with signals_raise():
                measured.append(measure_and_bundle(config, hardware, origin, start))
        else:
            client = preflight()
            with tracked_run(client, record.run_name(config)) as run:
                tracking.log_environment(client, run.run_id, describe_environment(hardware))
                with log_of_a_failed_engine(run):
                    measured.append(measure_and_bundle(config, hardware, run.origin(), start_engine))
                tracking.log_bundle(client, run.run_id, measured[0])
            measured[0].mark_logged(tracking.without_password(client.tracking_uri), run.run_id)
            console.say(f"\n{run.where()}")
    finally:
        for each in measured:
            later = "" if each.logged else f"\nlog it later: {each.upload_command}"
            console.say(f"result: {each.directory}{later}")
    click.echo(record.closing_line(measured[0].contents.params, measured[0].contents.metrics))


@contextlib.contextmanager
def log_of_a_failed_engine(run: TrackedRun) -> Iterator[None]:
    """Leave the engine's log in the run, where a teammate without access to this machine finds it."""
    try:
        yield
    except EngineError as error:
        if error.log:
            redact_file(error.log, os.environ)
            with contextlib.suppress(TrackingError):  # a server that is away must not hide why the engine failed
                runs.log_files(run.client, run.run_id, [error.log])
        raise


def preflight() -> MlflowClient:
    """A client of a tracking server that answers, with the runs closed that dead processes of this host left behind.

    Raises:
        TrackingError: it does not; the way out is part of the message.
    """
    try:
        client = tracking.connect()
        for stale in close_stale_runs(client):
            console.say(f"closed run {stale.name} ({stale.run_id}): its process {stale.process.pid} is dead")
    except TrackingError as error:
        raise TrackingError(
            f"{error} Or measure now and log the result later (mlflow run asks the server itself): "
            "PYTHONPATH=src python -m flows.benchmark … --offline true"
        ) from error
    return client


def report_partial_results(results_dir: Path) -> None:
    for partial in abandoned(results_dir):
        console.say(
            f"a measurement was cut off here: {len(partial.transcripts)} transcripts are in {partial.directory}"
        )


def measure_and_bundle(
    config: BenchmarkConfig, hardware: Hardware, origin: Origin, start: StartEngine = start_engine
) -> bundle.Bundle:
    """The data path: corpus and model, engine, clock, score, and the result on disk."""
    started_ms = _now_ms()
    require_engine_for(hardware)
    checkpoint = resolve_model(
        config.model, config.model_revision, cache_dir=CACHE, random_weights=config.random_weights
    )
    settings = engine_settings(config, checkpoint, hardware)
    corpus = load_corpus(config.corpus, config.split, config.limit)
    with console.bar("checking audio", len(corpus.utterances), "files/sec") as checking:
        inspected = inspect_corpus(corpus, config.workers or free_cores(), checking.reached, CACHE)

    if config.long_audio == "drop" and inspected.utterances_over_30s == len(corpus.utterances):
        raise CorpusError(
            f"long_audio=drop leaves nothing: all {len(corpus.utterances)} utterances of {corpus.source} are longer "
            "than 30 s. Use long_audio=split."
        )
    with no_orphans(), Journal(Path(config.results_dir), config.digest, config.as_params(), origin) as journal:
        console.say(f"starting the engine ({checkpoint.model_id}, {settings.dtype}, {hardware.gpu_name}) …")
        engine = start(settings, hardware, journal.artifacts / ENGINE_LOG)
        try:
            console.say(f"engine ready in {engine.facts.load_seconds:.0f} s; warming up …")
            with console.bar("transcribing", len(corpus.utterances) * config.repeats) as bar:

                def on_result(repeat: int, transcript: measure.Transcript) -> None:
                    journal.append(repeat, transcript)
                    bar.advance()

                measurement = measure.measure(
                    engine,
                    corpus.utterances,
                    repeats=config.repeats,
                    warmup=settings.windows_per_step,
                    count_tokens=checkpoint.count_tokens if config.random_weights else None,
                    hardware=hardware,
                    on_result=on_result,
                )
        finally:
            engine.close()
        journal.clock_stopped(measurement)

        transcripts = measurement.median.transcripts
        scored = score_of(config, corpus, transcripts)
        console.show_transcripts(transcripts, scored)
        facts = record.Facts(
            model_id=checkpoint.model_id,
            model_revision=checkpoint.revision,
            dataset=record.Dataset(corpus.name, corpus.split, inspected.digest, corpus.source),
            utterances_over_30s=inspected.utterances_over_30s,
            hardware=hardware,
            settings=settings,
            engine=engine.facts,
            git_dirty=git_is_dirty(PROJECT),
        )
        contents = record.run_contents(config, facts, measurement, scored, started_ms=started_ms, ended_ms=_now_ms())

        def write_artifacts(directory: Path) -> None:
            table = record.transcript_table(transcripts, scored)
            (directory / "transcripts.json").write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
            (directory / "summary.md").write_text(contents.description, encoding="utf-8")
            (directory / "environment.txt").write_text(describe_environment(hardware), encoding="utf-8")
            audio = {utterance.id: utterance.audio for utterance in corpus.utterances}
            write_samples(
                directory / "samples",
                scored.utterances if scored else transcripts,
                lambda utt_id: load_audio(audio[utt_id]),
                seed=config.seed,
            )
            redact_file(directory / ENGINE_LOG, os.environ)

        return journal.finish(contents, write_artifacts)


def score_of(config: BenchmarkConfig, corpus: Corpus, transcripts: tuple[measure.Transcript, ...]) -> Score | None:
    """The score, or None with random weights and where the corpus has no transcripts; both are said."""
    if config.random_weights:
        console.say("no WER: random weights (load_format=dummy)")
        return None
    if any(utterance.reference is None for utterance in corpus.utterances):
        console.say(f"no WER: {corpus.source} has no transcripts")
        return None
    return score(transcripts, config.language, config.seed)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    main()
