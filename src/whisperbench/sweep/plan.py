"""Identities of the runs of a sweep, and the runs that earlier sweeps have finished."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from whisperbench.benchmark import checked_corpus
from whisperbench.checkpoint.checkpoint import resolve_model
from whisperbench.config.benchmark import OPTIONS, VLLM_ENGINES, BenchmarkConfig
from whisperbench.engines.hardware import Hardware, engine_version, select_gpus
from whisperbench.errors import WhisperbenchError
from whisperbench.progress import Listener
from whisperbench.results.keys import speed_key
from whisperbench.results.names import CONFIG_DIGEST, SPEED_KEY
from whisperbench.results.record import RunIdentity
from whisperbench.sweep.grid import Task
from whisperbench.sweep.progress import PlannedRun
from whisperbench.tracking.sweep_runs import FinishedRun


class RunIdentities:
    """Computes the identities that runs would have on `hardware`.

    Each model and each set of data is resolved once, even if several configurations share it.  Resolving also fills
    the cache (downloads, converted checkpoints, decoded durations), so that the benchmark processes find it there.
    """

    def __init__(self, hardware: Hardware, vllm_version: str | None, cache_dir: Path, listener: Listener) -> None:
        self._hardware, self._vllm_version = hardware, vllm_version
        self._cache_dir, self._listener = cache_dir, listener
        self._known: dict[tuple[object, ...], str | WhisperbenchError | None] = {}

    def of(self, config: BenchmarkConfig) -> RunIdentity:
        """The identity of a run with these options.

        Raises:
            ModelError, CorpusError, AudioError: the configuration cannot be measured.
        """
        dataset, revision = self._digest(config), self._revision(config)
        version = self._vllm_version if config.engine in VLLM_ENGINES else engine_version(config.engine)
        hardware = select_gpus(self._hardware, config)
        params = {"model_revision_resolved": revision or "", "engine_version": version or ""}
        tags = {CONFIG_DIGEST: config.digest, SPEED_KEY: speed_key(config, dataset, hardware)}
        return RunIdentity.of({**config.as_params(), **params}, tags)

    def of_measurable(self, config: BenchmarkConfig) -> RunIdentity | None:
        """The identity, or None if the configuration cannot be measured; its child run will record the error."""
        try:
            return self.of(config)
        except WhisperbenchError:
            return None

    def require_one(self, configs: Iterable[BenchmarkConfig]) -> None:
        """Raise the error of the first configuration if none can be measured."""
        first, *others = configs
        if all(self.of_measurable(config) is None for config in (first, *others)):
            self.of(first)

    def _revision(self, config: BenchmarkConfig) -> str | None:
        model, cache_dir, random_weights = (config.model, config.model_revision), self._cache_dir, config.random_weights
        find = functools.partial(resolve_model, *model, cache_dir=cache_dir, random_weights=random_weights)
        return self._once(("model", *model, random_weights), lambda: find().revision)

    def _digest(self, config: BenchmarkConfig) -> str:
        """The digest of the data, which is computed once for each combination of the options that it depends on."""
        data = (getattr(config, name) for name, each in OPTIONS.items() if each.group == "Data")
        find = functools.partial(checked_corpus, config, self._listener, self._cache_dir)
        return str(self._once(("data", *data, config.random_weights), lambda: find().digest))

    def _once(self, key: tuple[object, ...], find: Callable[[], str | None]) -> str | None:
        """Call `find` once per key; later calls return its result, or raise its error, again."""
        if key not in self._known:
            try:
                self._known[key] = find()
            except WhisperbenchError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, WhisperbenchError):
            raise found
        return found


class EarlierRuns:
    """Finished runs of earlier sweeps, each of which replaces at most one run of this sweep.

    With `resume` false they only serve for estimates.  Only runs with the same number of `repeats` within a run can
    replace a run.
    """

    def __init__(
        self, identities: RunIdentities, finished: Sequence[FinishedRun], *, resume: bool, repeats: int
    ) -> None:
        self._identities = identities
        self._finished = [(RunIdentity.of(each.params, each.tags).asked_for, each) for each in finished]
        self._unused = [pair for pair in self._finished if resume and pair[1].params.get("repeats") == str(repeats)]

    def plan(self, task: Task) -> PlannedRun:
        """The run of a task with an estimate of its duration; skipped if an earlier sweep has finished it."""
        identity = self._identities.of_measurable(task.config)
        run = PlannedRun(task.name, task.repeat, self._estimate_seconds(task, identity))
        found = next((pair for pair in self._unused if pair[0] == identity), None)
        if found is not None:
            self._unused.remove(found)
            run.state, run.run_id = "skipped", found[1].run_id
            run.seconds, run.metrics = found[1].seconds, found[1].metrics
        return run

    def _estimate_seconds(self, task: Task, identity: RunIdentity | None) -> float | None:
        """The median duration of earlier runs on this GPU and data, of this configuration or else of this model.

        None if neither was measured, because the durations of other models differ too much.
        """
        if identity is None:
            return None
        known = [(other, each) for other, each in self._finished if other.speed_key == identity.speed_key]
        own = [each.seconds for other, each in known if other.config_digest == identity.config_digest]
        of_model = [each.seconds for _, each in known if each.params.get("model") == task.config.model]
        return statistics.median(own or of_model) if own or of_model else None
