"""One configuration measured, from a corpus and a model to a run on the tracking server: the data path on one page.

    corpus → checked, digested ┐
    model → checkpoint         ┴→ engine → clock → score → bundle on disk → run on the server

Whatever happens to the server, the whole result is on disk before anything is sent.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from whisperbench.checkpoint.checkpoint import resolve_model
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.corpus.audio import load_audio
from whisperbench.corpus.corpus import Corpus, load_corpus
from whisperbench.corpus.inspection import CorpusFacts, inspect_corpus
from whisperbench.corpus.packing import pack_utterances
from whisperbench.engines.base import StartEngine
from whisperbench.engines.engine_log import last_line
from whisperbench.engines.hardware import Hardware, free_cores
from whisperbench.engines.settings import engine_settings
from whisperbench.engines.start import hardware_of_the_engine, require_engine_for, start_engine
from whisperbench.errors import CorpusError, EngineError, TrackingError
from whisperbench.files import cache_directory
from whisperbench.measure.score import Score, check_references, score
from whisperbench.measure.timing import Transcript, run_timed_passes
from whisperbench.processes.guardian import kill_children_on_exit
from whisperbench.processes.signals import signals_raise
from whisperbench.processes.watch import RUN_ID
from whisperbench.progress import Listener
from whisperbench.results.bundle import Bundle, Origin
from whisperbench.results.environment import describe_environment, git_is_dirty
from whisperbench.results.names import WARNINGS
from whisperbench.results.plots import PLOTS, write_plots
from whisperbench.results.recording import Journal, abandoned, write_texts
from whisperbench.results.run_data import run_data, run_start
from whisperbench.results.run_info import Dataset, RunInfo
from whisperbench.results.run_name import run_name
from whisperbench.results.samples import write_samples
from whisperbench.text import redact_file, without_password
from whisperbench.tracking import runs as tracking
from whisperbench.tracking.client import Client, connect, password_in
from whisperbench.tracking.experiment_page import update_experiment_page
from whisperbench.tracking.live import LiveMetrics
from whisperbench.tracking.stale import close_stale_runs
from whisperbench.tracking.tracked_run import TrackedRun, tracked_run

ENGINE_LOG, ENGINE_LOGS = "engine.log", "engine*.log"  # of several engines each has one, with its number


def run(config: BenchmarkConfig, listener: Listener, start: StartEngine = start_engine) -> Bundle:
    """Measure, keep the result on disk, and only then send it; with `offline` it stays on disk.

    Raises:
        WhisperbenchError: the configuration cannot be measured, or the server is away; the run says why.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hardware = hardware_of_the_engine(visible, config.gpus, config.gpu_type, config.ray_address)
    for partial in abandoned(Path(config.results_dir)):
        listener.said(
            f"a measurement was cut off here: {len(partial.transcripts)} transcripts are in {partial.directory}"
        )
    if config.offline:
        origin = Origin(run_id=os.environ.get(RUN_ID), tags=tracking.local_tags({}))
        with signals_raise():
            bundle = measure_to_disk(config, hardware, origin, listener, start)
        listener.said(where(bundle))
        require_all_engines(bundle)
        return bundle
    client = preflight(listener)
    measured: list[Bundle] = []
    try:
        with tracked_run(client, run_name(config, hardware)) as tracked:
            tracking.log_environment(client, tracked.run_id, describe_environment(hardware))
            update_experiment_page(client, tracked.experiment_id)
            live = LiveMetrics(client, tracked.run_id, hardware, listener)
            live.log_start(run_start(config, hardware))  # a run that fails early has its params, too
            with log_of_a_failed_engine(tracked), contextlib.ExitStack() as until:
                tracking.start_system_metrics(client, tracked.run_id, until)
                measured.append(measure_to_disk(config, hardware, tracked.origin(), listener, start, live))
            tracking.log_bundle(client, tracked.run_id, measured[0])
            require_all_engines(measured[0])
        update_experiment_page(client, tracked.experiment_id)
        measured[0].mark_logged(without_password(client.tracking_uri), tracked.run_id)
        listener.said(f"\n{tracked.where()}")
    finally:
        for bundle in measured:
            listener.said(where(bundle))
    return measured[0]


def measure_to_disk(
    config: BenchmarkConfig,
    hardware: Hardware,
    origin: Origin,
    listener: Listener,
    start: StartEngine = start_engine,
    live: LiveMetrics | None = None,
) -> Bundle:
    """The data path: corpus and model, engine, clock, score, and the result on disk; `live` logs its progress."""
    started_ms, begun, cache = time.time_ns() // 1_000_000, time.perf_counter(), cache_directory()
    require_engine_for(hardware, config.engine)
    checkpoint = resolve_model(
        config.model, config.model_revision, cache_dir=cache, random_weights=config.random_weights
    )
    settings = engine_settings(config, checkpoint, hardware)
    corpus, inspected = checked_corpus(config, listener, cache)
    dataset = Dataset(corpus.name, corpus.split, inspected.digest, corpus.source, len(corpus.utterances))
    if live:
        live.log_start(run_start(config, hardware, dataset, checkpoint.model_id, checkpoint.revision))
    with (
        kill_children_on_exit(),
        Journal(Path(config.results_dir), config.digest, config.as_params(), origin) as journal,
    ):
        listener.said(f"starting {config.engine} ({checkpoint.model_id}, {settings.dtype}, {hardware.gpu_name}) …")
        log = journal.artifacts / ENGINE_LOG
        with listener.waiting(f"starting {config.engine}", lambda: last_line(log)):
            engine = start(settings, hardware, log)
        try:
            listener.said(f"engine ready in {engine.facts.load_seconds:.0f} s")
            total = len(corpus.utterances) * config.repeats * config.corpus_copies
            with live or contextlib.nullcontext(), shown_from_the_start(listener, total) as (started, transcribed):
                measurement = run_timed_passes(
                    engine,
                    corpus.utterances,
                    repeats=config.repeats,
                    warmup=settings.warm_up_windows(hardware),
                    hardware=hardware,
                    on_start=[started, *([live.on_start] if live else [])],
                    on_result=[
                        journal.append,
                        *([live.on_result] if live else []),
                        lambda _repeat, _transcript: transcribed(journal.finished),
                    ],
                    count_tokens=checkpoint.count_tokens if config.random_weights else None,
                    stall_seconds=settings.stall_seconds,
                    rounds=config.corpus_copies,
                    seconds=inspected.seconds,
                )
        finally:
            engine.close()
        facts = RunInfo(
            model_id=checkpoint.model_id,
            model_revision=checkpoint.revision,
            dataset=dataset,
            utterances_over_30s=inspected.utterances_over_30s,
            hardware=hardware,
            settings=settings,
            engine=engine.facts,
            git_dirty=git_is_dirty(),
        )
        # A clock of the machine that is set back must not end a run before its start.
        ended_ms = started_ms + round(1000 * (time.perf_counter() - begun))
        journal.clock_stopped(measurement, facts, started_ms, ended_ms)

        transcripts = measurement.median.first_round
        scored = score_of(config, corpus, transcripts, listener)
        listener.show(scored or transcripts)
        if any(each.frozen_seconds for each in measurement.passes):
            listener.warned("nothing went on for a while: the speed of this run is no measurement, and is not ranked")
        contents = run_data(config, facts, measurement, scored, started_ms=started_ms, ended_ms=ended_ms)

        def write_artifacts(directory: Path) -> None:
            write_texts(directory, transcripts, scored, contents)
            (directory / "environment.txt").write_text(describe_environment(hardware), encoding="utf-8")
            audio = {utterance.id: utterance.audio for utterance in corpus.utterances}
            write_samples(
                directory / "samples",
                scored.utterances if scored else transcripts,
                lambda utt_id: load_audio(audio[utt_id]),
                seed=config.seed,
            )
            write_plots(directory / PLOTS, measurement.median, scored)
            for each in directory.glob(ENGINE_LOGS):
                redact_file(each, os.environ)

        return journal.finish(contents, write_artifacts)


@contextlib.contextmanager
def shown_from_the_start(
    listener: Listener, utterances: int
) -> Iterator[tuple[Callable[[], None], Callable[[int], None]]]:
    """(called when the clock starts, told how many are done): the bar and its rate begin with the clock, not before."""
    counts: list[Callable[[int], None]] = []
    with contextlib.ExitStack() as shown:
        shown.enter_context(listener.waiting("warming up", lambda: ""))

        def started() -> None:
            if not counts:  # the first of several repeats
                shown.close()
                counts.append(shown.enter_context(listener.counting("transcribing", utterances, "reqs/sec")))

        def transcribed(done: int) -> None:
            counts[0](done)

        yield started, transcribed


def checked_corpus(config: BenchmarkConfig, listener: Listener, cache: Path) -> tuple[Corpus, CorpusFacts]:
    """The utterances to transcribe, every file decoded once and every reference normalised once before the clock."""

    def inspect(corpus: Corpus) -> CorpusFacts:
        with listener.counting("checking audio", len(corpus.utterances), "files/sec") as checked:
            return inspect_corpus(corpus, config.reader_threads or free_cores(), checked, cache)

    given = load_corpus(config.corpus, config.split, config.limit)
    for sentence in given.doubts:
        listener.warned(sentence)
    if not config.random_weights:
        check_references(given.utterances, config.language)
    corpus, inspected = pack_utterances(given, config.pack_seconds, inspect)
    if config.long_audio == "drop" and inspected.utterances_over_30s == len(corpus.utterances):
        raise CorpusError(
            f"long_audio=drop leaves nothing: all {len(corpus.utterances)} utterances of {corpus.source} are longer "
            "than 30 s. Use long_audio=split."
        )
    return corpus, inspected


def score_of(
    config: BenchmarkConfig, corpus: Corpus, transcripts: tuple[Transcript, ...], listener: Listener
) -> Score | None:
    """The score, or None with random weights and where the corpus has no transcripts; both are said."""
    if config.random_weights:
        listener.said("no WER: random weights (load_format=dummy)")
        return None
    if any(utterance.reference is None for utterance in corpus.utterances):
        listener.said(f"no WER: {corpus.source} has no transcripts")
        return None
    return score(transcripts, config.language, config.seed)


def preflight(listener: Listener) -> Client:
    """A client of a tracking server that answers, with the runs closed that dead processes of this host left behind.

    Raises:
        TrackingError: it does not; the way out is part of the message.
    """
    try:
        client = connect()
        if warning := password_in(str(client.tracking_uri)):
            listener.warned(warning)
        for stale in close_stale_runs(client):
            listener.said(f"closed run {stale.name} ({stale.run_id}): its process {stale.process.pid} is dead")
    except TrackingError as error:
        raise TrackingError(
            f"{error} Or measure now and log the result later (mlflow run asks the server itself): "
            "whisperbench benchmark … --offline"
        ) from error
    return client


@contextlib.contextmanager
def log_of_a_failed_engine(tracked: TrackedRun) -> Iterator[None]:
    """Leave the engine's log in the run, where a teammate without access to this machine finds it."""
    try:
        yield
    except EngineError as error:
        if error.log:
            redact_file(error.log, os.environ)
            with contextlib.suppress(TrackingError):  # a server that is away must not hide why the engine failed
                tracking.log_files(tracked.client, tracked.run_id, [error.log])
        raise


def require_all_engines(bundle: Bundle) -> None:
    """Refuse a result without a speed, now that its texts are safe.

    Raises:
        EngineError: an engine was lost while the clock ran.
    """
    if "reqs_per_sec" not in bundle.contents.metrics:
        raise EngineError(f"{bundle.contents.tags[WARNINGS]}. All texts are in {bundle.directory}.")


def where(bundle: Bundle) -> str:
    """Where a result is on disk, and how to log it where it is not."""
    later = "" if bundle.logged else f"\nlog it later: {bundle.upload_command}"
    return f"result: {bundle.directory}{later}"
