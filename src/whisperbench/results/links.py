"""Addresses of runs and experiments in the MLflow UI."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from urllib.parse import quote

from whisperbench.results.record import RunRecord

MAX_COMPARED = 10  # MLflow's limit of runs in its comparison view
VIEW = "whisperbench"
"""The name of the saved view of an experiment's runs (`tracking.experiment_page`)."""


def run_path(experiment_id: str, run_id: str) -> str:
    """A run's page, relative to the server; `workflowType` prevents MLflow from opening its GenAI view."""
    return f"#/experiments/{quote(experiment_id)}/runs/{quote(run_id)}?workflowType=machine_learning"


def runs_path(experiment_id: str, *, view: bool = True) -> str:
    """The table of an experiment's runs, relative to the server; `view` selects the saved columns and order."""
    saved = f"viewStateShareKey={VIEW}&" if view else ""
    return f"#/experiments/{quote(experiment_id)}/runs?{saved}workflowType=machine_learning"


@dataclasses.dataclass(frozen=True, slots=True)
class Links:
    """Links to one server, whose `address` must not contain a password."""

    address: str

    def run(self, run: RunRecord) -> str:
        """The page of a run."""
        return f"{self.address}/{run_path(run.experiment_id, run.run_id)}"

    def transcripts(self, runs: Sequence[RunRecord]) -> str:
        """MLflow's artifact view of the first run and of up to nine others in its experiment.

        The order by WER is set because MLflow's default order adds parent runs of sweeps, which have no transcripts.
        """
        compared = [run for run in runs if run.experiment_id == runs[0].experiment_id][:MAX_COMPARED]
        ids = ", ".join(f"'{run.run_id}'" for run in compared)
        return (
            f"{self.address}/#/experiments/{quote(runs[0].experiment_id)}/runs"
            f"?searchFilter={quote(f'attributes.run_id IN ({ids})', safe='')}"
            f"&orderByKey={quote('metrics.`wer`', safe='')}&orderByAsc=true"
            "&compareRunsMode=ARTIFACT&workflowType=machine_learning"
        )
