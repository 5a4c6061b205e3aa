"""Context manager of a run, which closes it with the right status after success, failure or a signal."""

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
from whisperbench.results.links import Links, run_path
from whisperbench.text import without_password
from whisperbench.tracking.client import serves_ui, ui_address, ui_port
from whisperbench.tracking.experiment_page import VIEW_TAG
from whisperbench.tracking.runs import close_run, open_run
from whisperbench.util import typed_command

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclasses.dataclass(frozen=True, slots=True)
class TrackedRun:
    """An open run and the client of its server."""

    client: MlflowClient
    run_id: str

    @property
    def experiment_id(self) -> str:
        return str(self.client.get_run(self.run_id).info.experiment_id)

    def where(self) -> str:
        """Links to the run and to all runs; for a database also the command that starts the UI in this environment."""
        links = Links(ui_address(self.client))
        experiment = self.client.get_experiment(self.experiment_id)
        # An experiment with comparisons only has no saved view.
        runs = links.runs(experiment.experiment_id, view=VIEW_TAG in experiment.tags)
        found = f"This run: {links.address}/{run_path(experiment.experiment_id, self.run_id)}\nAll runs: {runs}"
        if serves_ui(self.client):
            return found
        command = f"mlflow ui --backend-store-uri {without_password(self.client.tracking_uri)} --port {ui_port()}"
        if program := typed_command():
            command = f"{program} ui"
        return f"View the results: {command}\n{found}"


@contextlib.contextmanager
def tracked_run(
    client: MlflowClient,
    name: str,
    tags: Mapping[str, str] | None = None,
    run_id: str | None = None,
    experiment: str | None = None,
) -> Iterator[TrackedRun]:
    """Open a run for the block: `run_id`, else the run that `mlflow run` has started, else a new one.

    A new run is created in `experiment` (None = the default experiment).  The run ends as FINISHED, as FAILED if the
    block raises an exception, and as KILLED after a signal; the cause is in the tag FAILURE.  If the signal also
    interrupts `mlflow run` (3.17), that process replaces KILLED by FAILED.

    Raises:
        TrackingError: the run cannot be opened, or cannot be closed after success.
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
        except Interrupted as interrupted:  # also from a nested `signals_raise`, which is absent from `raised`
            status, failure = "KILLED", str(interrupted)
            raise
        except BaseException as error:
            failure = str(error) if isinstance(error, WhisperbenchError) else f"{type(error).__name__}: {error}"
            raise
        finally:
            if raised:  # also if a library has converted the exception into another one
                status, failure = "KILLED", str(raised[0])
            # A change of the system time must not place the end of the run before its start.
            ended_ms = opened_ms + round(1000 * (time.perf_counter() - opened))
            # An error of the server must not replace the error of the block.
            with contextlib.suppress(TrackingError) if status != "FINISHED" else contextlib.nullcontext():
                try:
                    close_run(client, run_id, status, failure, ended_ms)
                except Interrupted as interrupted:
                    close_run(client, run_id, "KILLED", str(interrupted), ended_ms)
                    raise
