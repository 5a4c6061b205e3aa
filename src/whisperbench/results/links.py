"""Addresses of runs in the MLflow UI."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import quote

SIDE_BY_SIDE = 10  # runs that MLflow's view shows at once
VIEW = "whisperbench"
"""The name of the saved view of an experiment's runs (`tracking.experiment_page`)."""


class Run(Protocol):
    """What an address is made of."""

    @property
    def run_id(self) -> str:
        """The run's id on its server."""

    @property
    def experiment_id(self) -> str:
        """The id of the experiment that it is in."""


def run_path(experiment_id: str, run_id: str) -> str:
    """The part of a run's address after the server's; without the parameter it opens in the GenAI view."""
    return f"#/experiments/{quote(experiment_id)}/runs/{quote(run_id)}?workflowType=machine_learning"


def runs_path(experiment_id: str, *, view: bool = True) -> str:
    """The same for the table of an experiment's runs; in the saved view, with its columns and order, if it has one."""
    saved = f"viewStateShareKey={VIEW}&" if view else ""
    return f"#/experiments/{quote(experiment_id)}/runs?{saved}workflowType=machine_learning"


@dataclasses.dataclass(frozen=True, slots=True)
class Links:
    """Addresses on one server; `address` is its own, without a password."""

    address: str

    def run(self, run: Run) -> str:
        """The page of a run."""
        return f"{self.address}/{run_path(run.experiment_id, run.run_id)}"

    def runs(self, experiment_id: str, *, view: bool = True) -> str:
        """The table of an experiment's runs."""
        return f"{self.address}/{runs_path(experiment_id, view=view)}"

    def transcripts(self, runs: Sequence[Run]) -> str:
        """Transcripts side by side: MLflow's artifact view of the first runs, all in the first one's experiment.

        In any order but the default one MLflow shows the runs of a sweep without their parent, which has no table.
        """
        together = [run for run in runs if run.experiment_id == runs[0].experiment_id][:SIDE_BY_SIDE]
        wanted = ", ".join(f"'{run.run_id}'" for run in together)
        return (
            f"{self.address}/#/experiments/{quote(runs[0].experiment_id)}/runs"
            f"?searchFilter={quote(f'attributes.run_id IN ({wanted})', safe='')}"
            f"&orderByKey={quote('metrics.`wer`', safe='')}&orderByAsc=true"
            "&compareRunsMode=ARTIFACT&workflowType=machine_learning"
        )
