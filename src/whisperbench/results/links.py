"""Addresses of runs in the MLflow UI."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import quote

MAX_COMPARED = 10  # runs that MLflow compares in one view
VIEW = "whisperbench"
"""The name of the saved view of an experiment's runs (`tracking.experiment_page`)."""


class Run(Protocol):
    """The parts of a run that its address needs."""

    @property
    def run_id(self) -> str:
        """The run's id on its server."""

    @property
    def experiment_id(self) -> str:
        """The id of the run's experiment."""


def run_path(experiment_id: str, run_id: str) -> str:
    """A run's page, relative to the server; without the parameter MLflow opens its GenAI view."""
    return f"#/experiments/{quote(experiment_id)}/runs/{quote(run_id)}?workflowType=machine_learning"


def runs_path(experiment_id: str, *, view: bool = True) -> str:
    """The table of an experiment's runs, relative to the server; `view` selects the saved columns and order."""
    saved = f"viewStateShareKey={VIEW}&" if view else ""
    return f"#/experiments/{quote(experiment_id)}/runs?{saved}workflowType=machine_learning"


@dataclasses.dataclass(frozen=True, slots=True)
class Links:
    """Links to one server; `address` is that of the server, without a password."""

    address: str

    def run(self, run: Run) -> str:
        """The page of a run."""
        return f"{self.address}/{run_path(run.experiment_id, run.run_id)}"

    def runs(self, experiment_id: str, *, view: bool = True) -> str:
        """The table of an experiment's runs."""
        return f"{self.address}/{runs_path(experiment_id, view=view)}"

    def transcripts(self, runs: Sequence[Run]) -> str:
        """MLflow's artifact view with the transcripts of the first ten runs in the experiment of the first run.

        In the default order MLflow adds the parent run of a sweep, which has no transcripts; another order prevents it.
        """
        compared = [run for run in runs if run.experiment_id == runs[0].experiment_id][:MAX_COMPARED]
        ids = ", ".join(f"'{run.run_id}'" for run in compared)
        return (
            f"{self.address}/#/experiments/{quote(runs[0].experiment_id)}/runs"
            f"?searchFilter={quote(f'attributes.run_id IN ({ids})', safe='')}"
            f"&orderByKey={quote('metrics.`wer`', safe='')}&orderByAsc=true"
            "&compareRunsMode=ARTIFACT&workflowType=machine_learning"
        )
