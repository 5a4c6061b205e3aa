"""What earlier sweeps have finished, set against what this one wants."""

from __future__ import annotations

from collections.abc import Sequence

from whisperbench.errors import WhisperbenchError
from whisperbench.sweep.grid import Task
from whisperbench.sweep.identity import Identities, Identity
from whisperbench.sweep.progress import Line
from whisperbench.tracking.sweep_runs import Finished, estimate_seconds


class Ledger:
    """Each finished run stands for one run of this sweep, once; with `resume` off none does.

    `repeats`: how often a run of this sweep measures inside itself; a run with another number is another thing.
    """

    def __init__(self, identities: Identities, earlier: Sequence[Finished], *, resume: bool, repeats: int) -> None:
        self.identities = identities
        self._earlier = earlier
        self._free = [each for each in earlier if resume and each.params.get("repeats") == str(repeats)]

    def line(self, task: Task) -> Line:
        """The task with an estimate; skipped where an earlier sweep has finished it."""
        identity = self._identity(task)
        line = Line(task.name, task.repeat, estimate_seconds(task.config, identity, self._earlier))
        found = next((each for each in self._free if each.identity == identity), None)
        if found is not None:
            self._free.remove(found)
            line.state, line.run_id, line.seconds, line.metrics = "skipped", found.run_id, found.seconds, found.metrics
        return line

    def must_have_work(self, tasks: Sequence[Task]) -> None:
        """Raise the first error when no task can be measured here at all."""
        errors = []
        for task in tasks:
            try:
                self.identities.of(task.config)
            except WhisperbenchError as error:
                errors.append(error)
            else:
                return
        if errors:
            raise errors[0]

    def _identity(self, task: Task) -> Identity | None:
        """None for what cannot be measured here: its own process will say why, in a run of its own."""
        try:
            return self.identities.of(task.config)
        except WhisperbenchError:
            return None
