"""Identities of the runs of a sweep, and the runs that earlier sweeps have finished."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from whisperbench.config.benchmark import OPTIONS, VLLM_ENGINES, BenchmarkConfig
from whisperbench.engines.hardware import Hardware, engine_version, select_gpus
from whisperbench.engines.settings import engine_settings
from whisperbench.engines.start import require_engine_for
from whisperbench.errors import WhisperbenchError
from whisperbench.preparation import checked_corpus, checkpoint_of
from whisperbench.progress import Listener
from whisperbench.results.keys import speed_key
from whisperbench.results.names import CONFIG_DIGEST, DISTURBED, SPEED_KEY
from whisperbench.results.record import RunIdentity
from whisperbench.sweep.grid import Task
from whisperbench.sweep.progress import PlannedRun
from whisperbench.tracking.sweep_runs import FinishedRun

T = TypeVar("T")


class RunIdentities:
    """Computes the identities that runs would have on `hardware`.

    Each model and each set of data is resolved once, even if several configurations share it.  Resolving also fills
    the cache (downloads, converted checkpoints, decoded durations), so that the benchmark processes find it there.
    """

    def __init__(self, hardware: Hardware, vllm_version: str | None, listener: Listener) -> None:
        self._hardware, self._vllm_version, self._listener = hardware, vllm_version, listener
        self._known: dict[tuple[object, ...], Any] = {}

    def of(self, config: BenchmarkConfig) -> RunIdentity:
        """The identity of a run with these options.

        Raises:
            WhisperbenchError: the configuration cannot be measured on this hardware.
        """
        hardware = select_gpus(self._hardware, config)
        require_engine_for(hardware, config.engine)
        # Each key holds the options that the result or a check depends on.
        model = config.model, config.model_revision, config.random_weights
        checkpoint = self._once(("model", *model), lambda: checkpoint_of(config))
        engine_settings(config, checkpoint, hardware)  # refuses options that the hardware does not support
        data = (getattr(config, name) for name, each in OPTIONS.items() if each.group == "Data")
        key = ("data", *data, config.random_weights)
        dataset = self._once(key, lambda: checked_corpus(config, self._listener).digest)
        version = self._vllm_version if config.engine in VLLM_ENGINES else engine_version(config.engine)
        params = {"model_revision_resolved": checkpoint.revision or "", "engine_version": version or ""}
        tags = {CONFIG_DIGEST: config.digest, SPEED_KEY: speed_key(config, dataset, hardware)}
        return RunIdentity.of(params, tags)

    def require_one(self, configs: Iterable[BenchmarkConfig]) -> None:
        """Check that at least one configuration can be measured.

        Raises:
            WhisperbenchError: none can be measured; it is the error of the first one.
        """
        first: WhisperbenchError | None = None
        for config in configs:
            try:
                self.of(config)
            except WhisperbenchError as error:
                first = first or error
            else:
                return
        if first:
            raise first

    def _once(self, key: tuple[object, ...], find: Callable[[], T]) -> T:
        """Call `find` once per key; later calls return its result, or raise its error, again."""
        if key not in self._known:
            try:
                self._known[key] = find()
            except WhisperbenchError as error:
                self._known[key] = error
        if isinstance(self._known[key], WhisperbenchError):
            raise self._known[key]
        found: T = self._known[key]
        return found


class EarlierRuns:
    """Finished runs of earlier sweeps, each of which replaces at most one run of this sweep.

    With `resume` false they only serve for estimates.  A run can be replaced only by a run with the same number of
    `repeats` that was not disturbed.
    """

    def __init__(
        self, identities: RunIdentities, finished: Sequence[FinishedRun], *, resume: bool, repeats: int
    ) -> None:
        self._identities = identities
        self._finished = [(RunIdentity.of(each.params, each.tags).asked_for, each) for each in finished]
        self._unused = [
            pair
            for pair in self._finished
            if resume and pair[1].params.get("repeats") == str(repeats) and DISTURBED not in pair[1].tags
        ]

    def plan(self, task: Task) -> PlannedRun:
        """The run of a task with an estimate of its duration.

        It is skipped if an earlier sweep has finished it, and refused if it cannot be measured on this hardware.
        """
        try:
            identity = self._identities.of(task.config)
        except WhisperbenchError as error:
            return PlannedRun(task.name, task.repeat, state="refused", failure=str(error))
        run = PlannedRun(task.name, task.repeat, self._estimate_seconds(task, identity))
        found = next((pair for pair in self._unused if pair[0] == identity), None)
        if found is not None:
            self._unused.remove(found)
            run.state, run.run_id = "skipped", found[1].run_id
            run.seconds, run.metrics = found[1].seconds, found[1].metrics
        return run

    def _estimate_seconds(self, task: Task, identity: RunIdentity) -> float | None:
        """The median duration of earlier runs on this GPU and data, of this configuration or else of this model.

        None if neither was measured, because the durations of other models differ too much.
        """
        known = [(other, each) for other, each in self._finished if other.speed_key == identity.speed_key]
        own = [each.seconds for other, each in known if other.config_digest == identity.config_digest]
        of_model = [each.seconds for _, each in known if each.params.get("model") == task.config.model]
        return statistics.median(own or of_model) if own or of_model else None
