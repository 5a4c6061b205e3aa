"""A run from its opening to its end, with the right status whatever ends it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from whisperbench.errors import TrackingError, WhisperbenchError
from whisperbench.processes.signals import Interrupted, signals_raise
from whisperbench.processes.watch import RUN_ID
from whisperbench.results.links import Links
from whisperbench.text import without_password
from whisperbench.tracking import runs as tracking
from whisperbench.tracking.client import serves_ui, ui_address, ui_port
from whisperbench.tracking.experiment_page import VIEW_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from whisperbench.results.bundle import Origin


@dataclasses.dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run that is open, and the client of its server."""

    client: MlflowClient
    run_id: str

    @property
    def experiment_id(self) -> str:
        return str(self.client.get_run(self.run_id).info.experiment_id)

    def origin(self) -> Origin:
        """How the run was opened, for its bundle."""
        return tracking.origin_of(self.client, self.run_id)

    def where(self) -> str:
        """The run's page and that of all runs, and how to open them where no server runs."""
        links = Links(ui_address(self.client))
        experiment = self.client.get_experiment(self.experiment_id)
        runs = links.runs(experiment.experiment_id, view=VIEW_TAG in experiment.tags)  # comparisons have no view
        found = f"run: {links.run(self)}\nruns: {runs}"
        if serves_ui(self.client):
            return found
        store = without_password(self.client.tracking_uri)
        return f"look: mlflow ui --backend-store-uri {store} --port {ui_port()}\n{found}"


@contextlib.contextmanager
def tracked_run(
    client: MlflowClient,
    name: str,
    tags: dict[str, str] | None = None,
    run_id: str | None = None,
    experiment: str | None = None,
) -> Iterator[TrackedRun]:
    """Open a run (or attach to `run_id`, or the one that `mlflow run` has started) and end it with the right status.

    A new one belongs to `experiment`, or to the one that MLFLOW_EXPERIMENT_NAME names.

    FINISHED when the block ends, FAILED when it raises, KILLED on a signal; a tag has the cause of the last two.
    `mlflow run` (3.17) writes FAILED over KILLED when it was interrupted together with this process.
    """
    experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME")
    run_id = run_id or os.environ.get(RUN_ID)
    with signals_raise() as raised:
        run_id = tracking.open_run(client, experiment=experiment, run_id=run_id, name=name, tags=tags or {})
        status, failure = "FAILED", None
        opened_ms, opened = time.time_ns() // 1_000_000, time.perf_counter()
        try:
            yield TrackedRun(client, run_id)
            status = "FINISHED"
        except Interrupted as interrupted:  # also one that a block inside this one was told of
            status, failure = "KILLED", str(interrupted)
            raise
        except BaseException as error:
            failure = str(error) if isinstance(error, WhisperbenchError) else f"{type(error).__name__}: {error}"
            raise
        finally:
            if raised:  # whatever it looked like to the code that was interrupted
                status, failure = "KILLED", str(raised[0])
            # Not the time of day: it may have been set back meanwhile, and a run ends after its start.
            _close(client, run_id, status, failure, opened_ms + round(1000 * (time.perf_counter() - opened)))


def _close(client: MlflowClient, run_id: str, status: str, failure: str | None, ended_ms: int) -> None:
    # A server that is away must not hide why the run ended.
    with contextlib.suppress(TrackingError) if status != "FINISHED" else contextlib.nullcontext():
        try:
            tracking.close_run(client, run_id, status, failure, ended_ms)
        except Interrupted as interrupted:
            tracking.close_run(client, run_id, "KILLED", str(interrupted), ended_ms)
            raise
