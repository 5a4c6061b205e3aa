"""Benchmark of one configuration, from a corpus and a model to a run on the tracking server.

    corpus → checked, digested ┐
    model → checkpoint         ┴→ engine → timed passes → score → bundle on disk → run on the server

The complete result is on disk before it is sent to the server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from whisperbench.checkpoint.checkpoint import Checkpoint, resolve_model
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.corpus.audio import load_audio
from whisperbench.corpus.corpus import Corpus, Utterance, load_corpus
from whisperbench.corpus.inspection import inspect_corpus, require_unchanged
from whisperbench.corpus.packing import pack_utterances
from whisperbench.engines.base import StartEngine
from whisperbench.engines.engine_log import last_line
from whisperbench.engines.hardware import Hardware, free_cores
from whisperbench.engines.settings import engine_settings
from whisperbench.engines.start import hardware_of_the_engine, require_engine_for, start_engine
from whisperbench.errors import CorpusError, EngineError, TrackingError
from whisperbench.files import cache_directory
from whisperbench.measure.score import check_references
from whisperbench.measure.timing import run_timed_passes
from whisperbench.processes.guardian import kill_children_on_exit
from whisperbench.processes.signals import signals_raise
from whisperbench.processes.watch import RUN_ID
from whisperbench.progress import Listener
from whisperbench.results.bundle import Bundle, Origin, upload_command
from whisperbench.results.environment import describe_environment, git_is_dirty
from whisperbench.results.names import WARNINGS
from whisperbench.results.plots import import_matplotlib
from whisperbench.results.recording import ENGINE_LOG, Journal, finish, interrupted_measurements
from whisperbench.results.run_data import run_start
from whisperbench.results.run_info import Dataset, RunInfo
from whisperbench.results.run_name import run_name
from whisperbench.text import redact_file, without_password
from whisperbench.tracking import runs as tracking
from whisperbench.tracking.client import Client, connect, password_in
from whisperbench.tracking.experiment_page import update_experiment_page
from whisperbench.tracking.live import LiveMetrics
from whisperbench.tracking.stale import close_stale_runs
from whisperbench.tracking.tracked_run import TrackedRun, tracked_run


def run(config: BenchmarkConfig, listener: Listener, start: StartEngine = start_engine) -> Bundle:
    """Measure, write the result to disk, and log it unless `config.offline` is set.

    Raises:
        WhisperbenchError: the configuration cannot be measured, the server does not answer, or no pass is valid.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hardware = hardware_of_the_engine(visible, config.gpus, config.gpu_type, config.ray_address)
    for directory, transcripts in interrupted_measurements(Path(config.results_dir)).items():
        listener.info(f"An earlier measurement was interrupted; its {transcripts} transcripts are in {directory}")
    if config.offline:
        origin = Origin(run_id=os.environ.get(RUN_ID), tags=tracking.local_tags({}))
        with signals_raise():
            bundle = measure_to_disk(config, hardware, origin, listener, start)
        listener.info(where(bundle))
        require_speed(bundle)
        return bundle
    client = preflight(listener)
    measured: list[Bundle] = []
    try:
        with tracked_run(client, run_name(config, hardware)) as tracked:
            tracking.log_environment(client, tracked.run_id, describe_environment(hardware))
            update_experiment_page(client, tracked.experiment_id)
            live = LiveMetrics(client, tracked.run_id, hardware, listener)
            live.log_start(run_start(config, hardware))  # so that a run that fails early has its params
            with log_of_failed_engine(tracked), contextlib.ExitStack() as until:
                tracking.start_system_metrics(client, tracked.run_id, until)
                origin = tracking.origin_of(client, tracked.run_id)
                measured.append(measure_to_disk(config, hardware, origin, listener, start, live))
            tracking.log_bundle(client, tracked.run_id, measured[0])
            require_speed(measured[0])
        update_experiment_page(client, tracked.experiment_id)
        measured[0].mark_logged(without_password(client.tracking_uri), tracked.run_id)
        listener.info(f"\n{tracked.where()}")
    finally:
        for bundle in measured:
            listener.info(where(bundle))
    return measured[0]


def measure_to_disk(
    config: BenchmarkConfig,
    hardware: Hardware,
    origin: Origin,
    listener: Listener,
    start: StartEngine = start_engine,
    live: LiveMetrics | None = None,
) -> Bundle:
    """Prepare corpus, model and engine, run the timed passes and write the bundle; `live` logs the progress.

    Raises:
        WhisperbenchError: the configuration cannot be measured, or the bundle cannot be written.
    """
    started_ms, begun, cache = time.time_ns() // 1_000_000, time.perf_counter(), cache_directory()
    require_engine_for(hardware, config.engine)
    checkpoint = resolve_model(
        config.model, config.model_revision, cache_dir=cache, random_weights=config.random_weights
    )
    settings = engine_settings(config, checkpoint, hardware)
    corpus = checked_corpus(config, listener, cache)
    utterances = utterances_of(config, corpus, checkpoint)
    dataset = Dataset(corpus.name, corpus.split, corpus.digest, corpus.source, len(corpus.utterances))
    if live:
        live.log_start(run_start(config, hardware, dataset, checkpoint.model_id, checkpoint.revision))
    with kill_children_on_exit(), Journal(config, origin, describe_environment(hardware)) as journal:
        listener.info(f"starting {config.engine} ({checkpoint.model_id}, {settings.dtype}, {hardware.gpu_name}) …")
        log, git_dirty = journal.artifacts / ENGINE_LOG, git_is_dirty()
        import_matplotlib()
        with listener.waiting(f"starting {config.engine}", lambda: last_line(log)):
            engine = start(settings, hardware, log)
        try:
            listener.info(f"engine ready in {engine.info.load_seconds:.0f} s")
            total = len(utterances) * config.repeats
            with live or contextlib.nullcontext(), progress_bar(listener, total) as (started, transcribed):
                measurement = run_timed_passes(
                    engine,
                    utterances,
                    repeats=config.repeats,
                    warmup=settings.warm_up_windows(hardware),
                    hardware=hardware,
                    on_start=[started, *([live.on_start] if live else [])],
                    on_result=[
                        journal.append,
                        *([live.on_result] if live else []),
                        lambda _result: transcribed(journal.finished),
                    ],
                    stall_seconds=settings.stall_seconds,
                )
            require_unchanged(corpus.files)
            checkpoint.require_unchanged()
            info = RunInfo(
                model_id=checkpoint.model_id,
                model_revision=checkpoint.revision,
                dataset=dataset,
                utterances_over_30s=corpus.utterances_over_30s,
                silent_utterances=len(corpus.silent),
                hardware=hardware,
                settings=settings,
                engine=engine.info,
                git_dirty=git_dirty,
            )
            # A change of the system time must not place the end of the run before its start.
            ended_ms = started_ms + round(1000 * (time.perf_counter() - begun))
            recording = journal.measured(measurement, info, started_ms, ended_ms)
        finally:
            engine.close()
        audio = {utterance.utt_id: utterance.audio for utterance in corpus.utterances}
        return finish(recording, listener, lambda utt_id: load_audio(audio[utt_id]))


def checked_corpus(config: BenchmarkConfig, listener: Listener, cache: Path) -> Corpus:
    """Load a corpus, decode every file once for its length and digest, and check that references can be scored.

    Raises:
        CorpusError, AudioError: the corpus cannot be transcribed; the message names the file or the utterance.
    """

    def inspect(corpus: Corpus) -> Corpus:
        with listener.counting("checking audio", len(corpus.utterances), "files/sec") as checked:
            return inspect_corpus(corpus, config.reader_threads or free_cores(), checked, cache)

    loaded = load_corpus(config.corpus, config.split, config.limit)
    for sentence in loaded.warnings:
        listener.warning(sentence)
    if not config.random_weights:
        check_references(loaded.utterances, config.language)
    corpus = pack_utterances(loaded, config.pack_seconds, inspect)
    if corpus.silent:
        listener.warning(
            f"{len(corpus.silent)} of {len(corpus.utterances)} utterances are silent, the first is {corpus.silent[0]}: "
            "all samples are zero, or the channels cancel out when they are averaged."
        )
    if config.long_audio == "drop" and corpus.utterances_over_30s == len(corpus.utterances):
        raise CorpusError(
            f"long_audio=drop removes every utterance, because all {len(corpus.utterances)} utterances of "
            f"{corpus.source} are longer than 30 s. Use long_audio=split."
        )
    return corpus


def utterances_of(config: BenchmarkConfig, corpus: Corpus, checkpoint: Checkpoint) -> tuple[Utterance, ...]:
    """The utterances of a pass with their copies; with random weights the number of tokens is that of the reference."""
    found = corpus.copied(config.corpus_copies)
    if config.random_weights:
        count = checkpoint.count_tokens
        return tuple(dataclasses.replace(each, forced_tokens=count(each.reference or "")) for each in found)
    return found


@contextlib.contextmanager
def progress_bar(listener: Listener, utterances: int) -> Iterator[tuple[Callable[[], None], Callable[[int], None]]]:
    """Progress of the warm-up and of all timed passes; `utterances` is the total over the repeats.

    Yields:
        A callback for the start of a pass and one for the number of finished utterances.
    """
    counts: list[Callable[[int], None]] = []
    with contextlib.ExitStack() as shown:
        shown.enter_context(listener.waiting("warming up", lambda: ""))

        def started() -> None:
            if not counts:  # the first pass
                shown.close()
                counts.append(shown.enter_context(listener.counting("transcribing", utterances, "reqs/sec")))

        def transcribed(done: int) -> None:
            counts[0](done)

        yield started, transcribed


def preflight(listener: Listener) -> Client:
    """Connect to the tracking server and close the runs that dead processes of this host have left open.

    Raises:
        TrackingError: the server does not answer.
    """
    try:
        client = connect()
        if warning := password_in(str(client.tracking_uri)):
            listener.warning(warning)
        for stale in close_stale_runs(client):
            listener.info(f"closed run {stale}")
    except TrackingError as error:
        raise TrackingError(
            f"{error} Or measure without the server (`whisperbench benchmark … --offline`; `mlflow run` always needs "
            "it) and log the result later."
        ) from error
    return client


@contextlib.contextmanager
def log_of_failed_engine(tracked: TrackedRun) -> Iterator[None]:
    """Log the engine's log as an artifact if the engine fails, because other users cannot read this disk."""
    try:
        yield
    except EngineError as error:
        if error.log:
            redact_file(error.log, os.environ)
            with contextlib.suppress(TrackingError):  # the engine's error is the one to report
                tracking.log_files(tracked.client, tracked.run_id, [error.log])
        raise


def require_speed(bundle: Bundle) -> None:
    """Fail if no pass is valid, so that the run ends as FAILED although its transcripts are complete.

    Raises:
        EngineError: an engine failed or paused in every timed pass.
    """
    if "reqs_per_sec" not in bundle.contents.metrics:
        raise EngineError(f"{bundle.contents.tags[WARNINGS]}. All transcripts are in {bundle.directory}.")


def where(bundle: Bundle) -> str:
    """The directory of a result, and the command that logs it if it is not logged."""
    later = "" if bundle.logged else f"\nLog the result later: {upload_command(bundle.directory)}"
    return f"Files: {bundle.directory}{later}"
