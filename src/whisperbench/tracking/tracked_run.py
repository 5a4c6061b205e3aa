"""A run from its opening to its end: it ends with the right status on success, failure and a signal."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from whisperbench.errors import TrackingError, WhisperbenchError
from whisperbench.processes.signals import Interrupted, signals_raise
from whisperbench.processes.watch import RUN_ID
from whisperbench.results.links import Links
from whisperbench.text import without_password
from whisperbench.tracking.client import serves_ui, ui_address, ui_port
from whisperbench.tracking.experiment_page import VIEW_TAG
from whisperbench.tracking.runs import close_run, open_run, origin_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from whisperbench.results.bundle import Origin


@dataclasses.dataclass(frozen=True, slots=True)
class TrackedRun:
    """An open run and the client of its server."""

    client: MlflowClient
    run_id: str

    @property
    def experiment_id(self) -> str:
        return str(self.client.get_run(self.run_id).info.experiment_id)

    def origin(self) -> Origin:
        """How the run was opened, for its bundle."""
        return origin_of(self.client, self.run_id)

    def where(self) -> str:
        """Links to the run and to all runs; for a database also the command that starts the UI."""
        links = Links(ui_address(self.client))
        experiment = self.client.get_experiment(self.experiment_id)
        # An experiment that holds only comparisons has no view.
        runs = links.runs(experiment.experiment_id, view=VIEW_TAG in experiment.tags)
        found = f"run: {links.run(self)}\nruns: {runs}"
        if serves_ui(self.client):
            return found
        store = without_password(self.client.tracking_uri)
        return f"View the results: mlflow ui --backend-store-uri {store} --port {ui_port()}\n{found}"


@contextlib.contextmanager
def tracked_run(
    client: MlflowClient,
    name: str,
    tags: Mapping[str, str] | None = None,
    run_id: str | None = None,
    experiment: str | None = None,
) -> Iterator[TrackedRun]:
    """Open a run for the block: `run_id`, else the run that `mlflow run` has started, else a new one.

    A new run belongs to `experiment` (None: the default one).  The run ends as FINISHED, as FAILED if the block raises,
    and as KILLED on a signal, with the cause in a tag.  `mlflow run` (3.17) writes FAILED over KILLED if the signal
    interrupts it together with this process.
    """
    with signals_raise() as raised:
        run_id = open_run(
            client, experiment=experiment, run_id=run_id or os.environ.get(RUN_ID), name=name, tags=tags or {}
        )
        status, failure = "FAILED", None
        opened_ms, opened = time.time_ns() // 1_000_000, time.perf_counter()
        try:
            yield TrackedRun(client, run_id)
            status = "FINISHED"
        except Interrupted as interrupted:  # also one that a block inside this one has received
            status, failure = "KILLED", str(interrupted)
            raise
        except BaseException as error:
            failure = str(error) if isinstance(error, WhisperbenchError) else f"{type(error).__name__}: {error}"
            raise
        finally:
            if raised:  # also if a library turned the signal into an error of its own
                status, failure = "KILLED", str(raised[0])
            # The system time may have been set back, and a run must not end before its start.
            ended_ms = opened_ms + round(1000 * (time.perf_counter() - opened))
            # A server that is away must not hide the cause.
            with contextlib.suppress(TrackingError) if status != "FINISHED" else contextlib.nullcontext():
                try:
                    close_run(client, run_id, status, failure, ended_ms)
                except Interrupted as interrupted:
                    close_run(client, run_id, "KILLED", str(interrupted), ended_ms)
                    raise
