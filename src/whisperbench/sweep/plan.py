"""Plan of a sweep: which of its runs can be measured here, and which were finished before."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from whisperbench.config.benchmark import OPTIONS, BenchmarkConfig
from whisperbench.config.sweep import SweepConfig
from whisperbench.engines.hardware import Hardware, engine_version, select_gpus
from whisperbench.engines.start import require_engine_for
from whisperbench.errors import ConfigError, WhisperbenchError
from whisperbench.preparation import checked_corpus, checked_settings, checkpoint_of
from whisperbench.progress import Listener
from whisperbench.results.keys import speed_key
from whisperbench.results.names import CONFIG_DIGEST, DISTURBED, SPEED_KEY
from whisperbench.results.record import RunIdentity, RunRecord
from whisperbench.sweep.progress import PlannedRun
from whisperbench.tracking.runs import PARENT_TAG


class Planner:
    """Sets the state and the estimated duration of runs.

    Each finished run of an earlier sweep replaces at most one run, which must have the same number of repeats.  Runs
    that were disturbed replace none, and with `resume` false no run does.
    """

    def __init__(
        self, options: SweepConfig, hardware: Hardware, finished: Sequence[RunRecord], listener: Listener
    ) -> None:
        self._hardware, self._listener = hardware, listener
        self._resolved: dict[tuple[object, ...], Any] = {}
        repeats = str(options.repeats_in_a_run)
        self._finished = [each for each in finished if each.params.get("repeats") == repeats]
        unused = self._finished if options.resume else []
        self._unused = [each for each in unused if PARENT_TAG in each.tags and DISTURBED not in each.tags]

    def plan_all(self, runs: Sequence[PlannedRun]) -> None:
        """Plan runs, of which at least one must be possible.

        Raises:
            ConfigError: no run can be measured on this hardware; the message has each cause once.
        """
        for run in runs:
            self.plan(run)
        if all(run.state == "refused" for run in runs):
            raise ConfigError(" ".join(dict.fromkeys(str(run.failure) for run in runs)))

    def plan(self, run: PlannedRun) -> None:
        """Estimate the duration of a run, and skip it if it was finished before, or refuse it if it is impossible."""
        try:
            identity = self.identity(run.config)
        except WhisperbenchError as error:
            run.state, run.failure = "refused", str(error)
            return
        run.estimate_seconds = self._estimate_seconds(run.config, identity)
        found = next((each for each in self._unused if _identity_of(each) == identity), None)
        if found is not None:
            self._unused.remove(found)
            run.state, run.run_id, run.seconds, run.metrics = "skipped", found.run_id, found.seconds, found.metrics

    def identity(self, config: BenchmarkConfig) -> RunIdentity:
        """The identity that a run with these options would have.

        Resolving it fills the cache (downloads, converted checkpoints, decoded durations) for the benchmark processes.

        Raises:
            WhisperbenchError: the configuration cannot be measured on this hardware.
        """
        hardware = select_gpus(self._hardware, config)
        require_engine_for(hardware, config.engine)
        # Each key holds the options that the result or a check depends on.
        model = config.model, config.model_revision, config.random_weights
        checkpoint = self._once(("model", *model), lambda: checkpoint_of(config))
        checked_settings(config, checkpoint, hardware)
        data = (getattr(config, name) for name, each in OPTIONS.items() if each.group == "Data")
        key = ("data", *data, config.random_weights)
        dataset = self._once(key, lambda: checked_corpus(config, self._listener).digest)
        version = engine_version(config.engine) or ""
        params = {"model_revision_resolved": checkpoint.revision or "", "engine_version": version}
        tags = {CONFIG_DIGEST: config.digest, SPEED_KEY: speed_key(config, dataset, hardware)}
        return RunIdentity.of(params, tags)

    def _estimate_seconds(self, config: BenchmarkConfig, identity: RunIdentity) -> float | None:
        """The median duration of earlier runs on this GPU and data, of this configuration or else of this model.

        None if neither was measured, because the durations of other models differ too much.
        """
        known = [each for each in self._finished if _identity_of(each).speed_key == identity.speed_key]
        own = [each.seconds for each in known if _identity_of(each).config_digest == identity.config_digest]
        of_model = [each.seconds for each in known if each.params.get("model") == config.model]
        return statistics.median(own or of_model) if own or of_model else None

    def _once(self, key: tuple[object, ...], find: Callable[[], Any]) -> Any:
        """Call `find` once per key; later calls return its result, or raise its error, again."""
        if key not in self._resolved:
            try:
                self._resolved[key] = find()
            except WhisperbenchError as error:
                self._resolved[key] = error
        if isinstance(self._resolved[key], WhisperbenchError):
            raise self._resolved[key]
        return self._resolved[key]


def _identity_of(run: RunRecord) -> RunIdentity:
    return RunIdentity.of(run.params, run.tags).asked_for
