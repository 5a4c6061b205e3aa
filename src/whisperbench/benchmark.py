"""Benchmark of one configuration, from a corpus and a model to a run on the tracking server.

    corpus → checked, digested ┐
    model → checkpoint         ┴→ engine → timed passes → score → bundle on disk → run on the server

The complete result is on disk before it is sent to the server.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.corpus.audio import load_audio
from whisperbench.corpus.inspection import require_unchanged
from whisperbench.engines.base import StartEngine
from whisperbench.engines.engine_log import last_line
from whisperbench.engines.start import hardware_of, start_engine
from whisperbench.errors import EngineError, TrackingError
from whisperbench.measure.result import UtteranceResult
from whisperbench.measure.timing import run_timed_passes
from whisperbench.preparation import Prepared, prepare
from whisperbench.processes.guardian import kill_children_on_exit
from whisperbench.processes.signals import signals_raise
from whisperbench.processes.watch import RUN_ID
from whisperbench.progress import Listener
from whisperbench.results.bundle import Bundle, Origin, locked, upload_command
from whisperbench.results.environment import describe_environment
from whisperbench.results.names import WARNINGS
from whisperbench.results.recording import CONFIG_FILE, ENGINE_LOG, Journal, finish
from whisperbench.results.run_data import run_start
from whisperbench.results.run_name import run_name
from whisperbench.text import redact_file, without_password
from whisperbench.tracking import runs as tracking
from whisperbench.tracking.client import Client, connect, password_in
from whisperbench.tracking.experiment_page import update_experiment_page
from whisperbench.tracking.tracked_run import LiveProgress, TrackedRun, close_stale_runs, tracked_run


def run(config: BenchmarkConfig, listener: Listener, start: StartEngine = start_engine) -> Bundle:
    """Measure, write the result to disk, and log it unless `config.offline` is set.

    A configuration that cannot be measured leaves no run on the server, unless `mlflow run` or a sweep has created the
    run before; that run ends as FAILED with the reason.

    Raises:
        WhisperbenchError: the configuration cannot be measured, the server does not answer, or no pass is valid.
    """
    hardware = hardware_of(config)
    with contextlib.ExitStack() as at_end:
        if config.offline:
            with signals_raise():
                prepared = prepare(config, hardware, listener)
                bundle = measure_to_disk(prepared, Origin(tags=tracking.local_tags({})), listener, start)
            at_end.callback(lambda: listener.info(where(bundle)))
            require_speed(bundle)
            return bundle
        client, ready = preflight(listener), None
        if RUN_ID not in os.environ:
            with signals_raise():
                ready = prepare(config, hardware, listener)
        with tracked_run(client, run_name(config, hardware)) as tracked:
            texts = {"environment.txt": describe_environment(hardware), CONFIG_FILE: json.dumps(config.as_params())}
            for name, text in texts.items():  # shows before the measurement that artifacts can be stored
                client.log_text(tracked.run_id, text, name)
            update_experiment_page(client, tracked.experiment_id)
            prepared = ready or prepare(config, hardware, listener)
            live = LiveProgress(client, tracked.run_id, hardware)
            tracking.log_start(client, tracked.run_id, run_start(prepared.info))
            with log_of_failed_engine(tracked), contextlib.ExitStack() as until:
                tracking.start_system_metrics(client, tracked.run_id, until)
                origin = tracking.origin_of(client, tracked.run_id)
                bundle = measure_to_disk(prepared, origin, listener, start, live)
            at_end.callback(lambda: listener.info(where(bundle)))
            with locked(bundle.directory):
                tracking.log_bundle(client, tracked.run_id, bundle)
            require_speed(bundle)
        update_experiment_page(client, tracked.experiment_id)
        bundle.mark_logged(without_password(client.tracking_uri), tracked.run_id)
        listener.info(f"\n{tracked.where()}")
        return bundle


def measure_to_disk(
    prepared: Prepared,
    origin: Origin,
    listener: Listener,
    start: StartEngine = start_engine,
    live: LiveProgress | None = None,
) -> Bundle:
    """Start the engine, run the timed passes and write the bundle; `live` logs the progress.

    Raises:
        WhisperbenchError: the engine failed, or the bundle cannot be written.
    """
    info, corpus, utterances = prepared.info, prepared.corpus, prepared.utterances
    config, hardware, settings = info.config, info.hardware, info.settings
    with (
        Journal(config, origin, describe_environment(hardware), listener) as journal,
        kill_children_on_exit(),
    ):
        if live:
            live.claim(journal.id)
        engines = config.engine if settings.engines == 1 else f"{settings.engines} {config.engine} engines"
        listener.info(f"starting {engines} ({info.model_id}, {settings.dtype}, {hardware.gpu_name}) …")
        log = journal.artifacts / ENGINE_LOG
        with listener.waiting(f"starting {engines}", lambda: last_line(log)):
            engine = start(settings, hardware, log)
        try:
            listener.info(f"{engines} ready in {engine.info.load_seconds:.0f} s")
            progress = progress_bars(listener, len(utterances), config.repeats)
            with live or contextlib.nullcontext(), progress as (started, transcribed):
                measurement = run_timed_passes(
                    engine,
                    utterances,
                    repeats=config.repeats,
                    warmup=settings.warm_up_windows(hardware),
                    hardware=hardware,
                    on_start=[started, *([live.on_start] if live else [])],
                    on_result=[journal.append, *([live.on_result] if live else []), transcribed],
                    stall_seconds=settings.stall_seconds,
                )
            require_unchanged(corpus)
            prepared.checkpoint.require_unchanged()
            recording = journal.measured(info, engine.info, measurement)
        finally:
            engine.close()
        audio = {utterance.utt_id: utterance.audio for utterance in corpus.utterances}
        return finish(recording, listener, lambda utt_id: load_audio(audio[utt_id]))


@contextlib.contextmanager
def progress_bars(
    listener: Listener, utterances: int, repeats: int
) -> Iterator[tuple[Callable[[], None], Callable[[UtteranceResult], None]]]:
    """Progress of the warm-up, and of each timed pass with its rate.

    Yields:
        A callback for the start of a pass and one for a finished utterance.
    """
    with contextlib.ExitStack() as shown:
        shown.enter_context(listener.waiting("warming up", lambda: ""))
        passes = itertools.count(1)
        advance: Callable[[], None]

        def started() -> None:
            nonlocal advance
            shown.close()
            what = f"transcribing, repeat {next(passes)} of {repeats}" if repeats > 1 else "transcribing"
            advance = shown.enter_context(listener.counting(what, utterances, "reqs/sec"))

        yield started, lambda _result: advance()


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
        raise TrackingError(f"{error} To measure without it, use offline=true, and log the result later.") from error
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
