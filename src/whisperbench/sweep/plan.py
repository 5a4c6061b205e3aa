"""The plan of a sweep: identities of its runs, and which of them are finished."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from whisperbench.benchmark import checked_corpus
from whisperbench.checkpoint.checkpoint import resolve_model
from whisperbench.config.benchmark import VLLM_ENGINES, BenchmarkConfig
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
    """Finds identities on this machine, or on the cluster that `hardware` is of; a model and a set of data are looked
    at once, however many share them.

    Looking at them also downloads, converts and decodes what was not before, so that no configuration's
    process has to.
    """

    def __init__(self, hardware: Hardware, vllm_version: str | None, cache_dir: Path, listener: Listener) -> None:
        self._hardware, self._vllm_version = hardware, vllm_version
        self._cache_dir, self._listener = cache_dir, listener
        self._known: dict[tuple[object, ...], str | WhisperbenchError | None] = {}

    def of(self, config: BenchmarkConfig) -> RunIdentity:
        """The identity that a run of these options would have.

        Raises:
            ModelError, CorpusError, AudioError: the configuration cannot be measured.
        """
        dataset, revision = self._digest(config), self._revision(config)
        version = self._vllm_version if config.engine in VLLM_ENGINES else engine_version(config.engine)
        params = {"model_revision_resolved": revision or "", "engine_version": version or ""}
        tags = {CONFIG_DIGEST: config.digest, SPEED_KEY: speed_key(config, dataset, self._hardware_of(config))}
        return RunIdentity.of({**config.as_params(), **params}, tags)

    def of_measurable(self, config: BenchmarkConfig) -> RunIdentity | None:
        """The same; None for what cannot be measured here: its own process will say why, in a run of its own."""
        try:
            return self.of(config)
        except WhisperbenchError:
            return None

    def require_one(self, configs: Iterable[BenchmarkConfig]) -> None:
        """Raise the first error when none of them can be measured here at all."""
        errors = []
        for config in configs:
            try:
                self.of(config)
            except WhisperbenchError as error:
                errors.append(error)
            else:
                return
        if errors:
            raise errors[0]

    def _hardware_of(self, config: BenchmarkConfig) -> Hardware:
        return select_gpus(self._hardware, config.gpu_type, config.gpus)

    def _revision(self, config: BenchmarkConfig) -> str | None:
        model, revision, random_weights = config.model, config.model_revision, config.random_weights

        def find() -> str | None:
            return resolve_model(model, revision, cache_dir=self._cache_dir, random_weights=random_weights).revision

        return self._once(("model", model, revision, random_weights), find)

    def _digest(self, config: BenchmarkConfig) -> str:
        """The digest of a configuration's data; what its check depends on is its key."""
        data = config.corpus, config.split, config.limit, config.pack_seconds
        check = config.long_audio, config.language, config.random_weights
        find = functools.partial(checked_corpus, config, self._listener, self._cache_dir)
        return str(self._once(("data", *data, *check), lambda: find().digest))

    def _once(self, key: tuple[object, ...], find: Callable[[], str | None]) -> str | None:
        """What `find` returns or raises; it is asked once."""
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
    """Finished runs of earlier sweeps: each stands for one run of this sweep, once; with `resume` off none does.

    `repeats`: how often a run of this sweep measures inside itself; a run with another number is another thing.
    """

    def __init__(
        self, identities: RunIdentities, finished: Sequence[FinishedRun], *, resume: bool, repeats: int
    ) -> None:
        self._identities = identities
        self._finished = [(RunIdentity.of(each.params, each.tags).asked_for, each) for each in finished]
        self._free = [
            (identity, each)
            for identity, each in self._finished
            if resume and each.params.get("repeats") == str(repeats)
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

    def _estimate_seconds(self, task: Task, identity: RunIdentity | None) -> float | None:
        """The median time of earlier runs on this GPU and data: of this configuration, else of this model.

        None where there is neither: other models take another time.
        """
        if identity is None:
            return None
        known = [(other, each) for other, each in self._finished if other.speed_key == identity.speed_key]
        own = [each.seconds for other, each in known if other.config_digest == identity.config_digest]
        alike = [each.seconds for _, each in known if each.params.get("model") == task.config.model]
        return statistics.median(own or alike) if own or alike else None
