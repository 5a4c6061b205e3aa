"""Measurement of one configuration: a child run, and the benchmark process that logs to it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.start import all_hardware, hardware_of
from whisperbench.errors import ConfigError, TrackingError
from whisperbench.files import require_writable, tail
from whisperbench.measure.load import SWEEP
from whisperbench.processes.group import CommandResult
from whisperbench.processes.watch import RUN_ID
from whisperbench.progress import Listener
from whisperbench.results.run_name import run_name
from whisperbench.sweep.grid import Task
from whisperbench.sweep.parallel import DeviceSlot, Stopped
from whisperbench.sweep.progress import PlannedRun
from whisperbench.sweep.sweep_run import ParentRun
from whisperbench.tracking.client import get_run
from whisperbench.tracking.runs import close_run
from whisperbench.tracking.sweep_runs import add_warning, close_failed, open_child_run

T = TypeVar("T")

TAIL_BYTES = 4_096
OUTAGE_SECONDS, RETRY_SECONDS = 600.0, 10.0


def measure(
    task: Task, run: PlannedRun, parent: ParentRun, command: Sequence[str], slot: DeviceSlot, stop: threading.Event
) -> None:
    """Run `command` for the configuration of `task` on `slot`, and store the result in `run`.

    The process closes its child run as FINISHED.  If it fails, the run is closed here with the cause and the log.  When
    `stop` is set, the process is ended.
    """
    client, config = parent.client, task.config
    name = run_name(config, hardware_on(slot, config), task.name)
    of_task = {"name": name, "config_digest": config.digest, "repeat": task.repeat}
    run.run_id = run_id = with_retries(parent.listener, open_child_run, client, parent.run_id, **of_task)
    try:
        run.state, run.device = "running", slot.name
        parent.changed()
        ended = run_process(task, run, parent, command, slot, stop)
        found = with_retries(parent.listener, get_run, client, run_id)
        run.seconds = ended.seconds
        if found.info.status != "FINISHED":
            run.failure = with_retries(parent.listener, close_failed, client, run_id, ended)
            run.state = "failed"
        else:
            run.state, run.metrics = "done", found.data.metrics
            if slot.warning:
                with_retries(parent.listener, add_warning, client, run_id, slot.warning)
    except BaseException:
        run.state, run.failure = "failed", "its sweep was stopped"
        with contextlib.suppress(TrackingError):
            if get_run(client, run_id).info.status == "RUNNING":
                close_run(client, run_id, "KILLED", run.failure)
        raise
    parent.changed()


def hardware_on(slot: DeviceSlot, config: BenchmarkConfig) -> Hardware:
    """The devices of a run on this slot; all devices if too few were found, because the started process reports it."""
    try:
        return slot.hardware or hardware_of(config)
    except ConfigError:
        return all_hardware()


def run_process(
    task: Task, run: PlannedRun, parent: ParentRun, command: Sequence[str], slot: DeviceSlot, stop: threading.Event
) -> CommandResult:
    """Run the command for one configuration until all processes of its group have ended."""
    log = parent.directory / str(run.run_id) / "benchmark.log"
    require_writable(log.parent, "results_dir")

    def tick(seconds: float) -> None:
        if stop.is_set():
            raise Stopped
        run.seconds = seconds
        run.log_line = next((line for line in reversed(tail(log, TAIL_BYTES).splitlines()) if line.strip()), "")
        parent.show()

    inherited = {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_NAME"}
    own = {"MLFLOW_TRACKING_URI": str(parent.client.tracking_uri), RUN_ID: str(run.run_id), SWEEP: parent.run_id}
    return slot.run(
        [*command, *(f"--{name}={value}" for name, value in task.config.as_params().items())],
        env={**inherited, **slot.environment, **own},
        log=log,
        time_limit_seconds=60 * (parent.options.time_limit_minutes or 0),
        tick=tick,
    )


def with_retries(listener: Listener, call: Callable[..., T], *args: Any, **keywords: Any) -> T:
    """Repeat `call` for ten minutes after a TrackingError, so that a restart of the server does not end a sweep."""
    deadline, reported = time.monotonic() + OUTAGE_SECONDS, False
    while True:
        try:
            return call(*args, **keywords)
        except TrackingError as error:
            if time.monotonic() > deadline:
                raise
            if not reported:
                listener.info(f"{error} Trying again for {OUTAGE_SECONDS / 60:.0f} minutes …")
            reported = True
            time.sleep(RETRY_SECONDS)
