"""What earlier sweeps have finished, set against what this one wants."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from whisperbench.results.names import FROZEN
from whisperbench.results.repeats import Identity
from whisperbench.sweep.grid import Task
from whisperbench.sweep.identity import Identities
from whisperbench.sweep.progress import PlannedRun
from whisperbench.tracking.sweep_runs import FinishedRun


class EarlierRuns:
    """Finished runs of earlier sweeps: each stands for one run of this sweep, once; with `resume` off none does.

    `repeats`: how often a run of this sweep measures inside itself; a run with another number is another thing.
    """

    def __init__(self, identities: Identities, finished: Sequence[FinishedRun], *, resume: bool, repeats: int) -> None:
        self._identities = identities
        self._finished = [(Identity.of(each.params, each.tags).asked_for, each) for each in finished]
        self._free = [
            (identity, each)
            for identity, each in self._finished
            if resume and FROZEN not in each.tags and each.params.get("repeats") == str(repeats)
        ]

    def plan(self, task: Task) -> PlannedRun:
        """The task with an estimate; skipped where an earlier sweep has finished it."""
        identity = self._identities.of_measurable(task.config)
        run = PlannedRun(task.name, task.repeat, self._estimate_seconds(task, identity))
        found = next((pair for pair in self._free if pair[0] == identity), None)
        if found is not None:
            self._free.remove(found)
            earlier = found[1]
            run.state, run.run_id, run.seconds, run.metrics = (
                "skipped",
                earlier.run_id,
                earlier.seconds,
                earlier.metrics,
            )
        return run

    def _estimate_seconds(self, task: Task, identity: Identity | None) -> float | None:
        """The median time of earlier runs on this GPU and data: of this configuration, else of this model.

        None where there is neither: other models take another time.
        """
        if identity is None:
            return None
        known = [(other, each) for other, each in self._finished if other.speed_key == identity.speed_key]
        own = [each.seconds for other, each in known if other.config_digest == identity.config_digest]
        alike = [each.seconds for _, each in known if each.params.get("model") == task.config.model]
        return statistics.median(own or alike) if own or alike else None
