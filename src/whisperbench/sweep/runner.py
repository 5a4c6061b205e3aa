"""Measures one configuration at a time: a child run, and a process of its own that fills it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from whisperbench.engines.start import hardware_of_the_engine
from whisperbench.errors import SweepError, TrackingError
from whisperbench.files import tail
from whisperbench.processes.group import CommandResult
from whisperbench.processes.watch import RUN_ID
from whisperbench.results.run_name import run_name
from whisperbench.sweep.grid import Task
from whisperbench.sweep.parallel import DeviceSlot, Stopped
from whisperbench.sweep.progress import PlannedRun
from whisperbench.sweep.sweep_run import ParentRun
from whisperbench.tracking import sweep_runs
from whisperbench.tracking.runs import close_run

T = TypeVar("T")

LAST_WORDS = 4_096  # bytes of a log, to find its last line in
WHOLE_HOST = DeviceSlot()
OUTAGE_SECONDS, RETRY_SECONDS = 600.0, 10.0


class LocalRunner:
    """Runs `command` once per configuration on `slot`, and reports its state to `parent`.

    When `stop` is set, the running command is ended.
    """

    def __init__(
        self,
        parent: ParentRun,
        command: Sequence[str],
        slot: DeviceSlot = WHOLE_HOST,
        stop: threading.Event | None = None,
    ) -> None:
        self._parent, self._client, self._command = parent, parent.client, command
        self._hardware = hardware_of_the_engine(os.environ.get("CUDA_VISIBLE_DEVICES"))
        self._slot, self._stop = slot, stop or threading.Event()

    def measure(self, task: Task, run: PlannedRun) -> None:
        """Measure `task` and note in `run` what came of it.

        The child run is FINISHED by the process itself, or closed here with its cause and its log.
        """
        client = self._client
        run.run_id = run_id = self._despite_outages(
            lambda: sweep_runs.open_child_run(
                client,
                self._parent.run_id,
                name=run_name(task.config, self._hardware, task.name),
                config_digest=task.config.digest,
                repeat=task.repeat,
            )
        )
        try:
            run.state, run.where = "running", self._slot.name
            self._parent.changed()
            ended = self._process(task, run, run_id)
            state = self._despite_outages(lambda: sweep_runs.state_of(client, run_id))
            run.seconds = ended.seconds
            if state.status == "FINISHED":
                run.state, run.metrics = "done", state.metrics
                if warning := self._slot.warning:
                    self._despite_outages(lambda: sweep_runs.add_warning(client, run_id, warning))
            else:
                run.failure = self._despite_outages(lambda: sweep_runs.close_failed(client, run_id, ended))
                run.state = "failed"
        except BaseException:
            with contextlib.suppress(TrackingError):
                if sweep_runs.state_of(client, run_id).status == "RUNNING":
                    close_run(client, run_id, "KILLED", "its sweep was stopped")
            raise
        self._parent.changed()

    def _process(self, task: Task, run: PlannedRun, run_id: str) -> CommandResult:
        """The process that measures one configuration, until nothing of it is left."""
        log = self._parent.directory / run_id / "benchmark.log"
        try:
            log.parent.mkdir(parents=True)
        except OSError as error:
            raise SweepError(f"results_dir={task.config.results_dir} cannot be written: {error}.") from error

        def tick(seconds: float) -> None:
            if self._stop.is_set():
                raise Stopped
            run.seconds = seconds
            *_, run.doing = ("", *(line for line in tail(log, LAST_WORDS).splitlines() if line.strip()))
            self._parent.show()

        given = {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_NAME"}
        given |= self._slot.environment
        return self._slot.run(
            [*self._command, *(f"--{name}={value}" for name, value in task.config.as_params().items())],
            env={**given, "MLFLOW_TRACKING_URI": str(self._client.tracking_uri), RUN_ID: run_id},
            log=log,
            time_limit_seconds=60 * self._parent.options.time_limit_minutes,
            tick=tick,
        )

    def _despite_outages(self, ask: Callable[[], T]) -> T:
        """What `ask` returns; a tracking server that is away for some minutes does not end a night's sweep."""
        deadline, said = time.monotonic() + OUTAGE_SECONDS, False
        while True:
            try:
                return ask()
            except TrackingError as error:
                if time.monotonic() > deadline:
                    raise
                if not said:
                    self._parent.listener.said(f"{error} Trying again for {OUTAGE_SECONDS / 60:.0f} minutes …")
                said = True
                time.sleep(RETRY_SECONDS)
