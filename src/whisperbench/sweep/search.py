"""Search for the best setting with Optuna's TPE sampler; a stored study continues after an interruption.

The first setting that is measured is `Search.first`, so the best one is at least as good as `Search.first`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisperbench.config.benchmark import OPTIONS, BenchmarkConfig
from whisperbench.config.compare import SORTINGS, Sorting
from whisperbench.config.sweep import Range, SweepConfig
from whisperbench.errors import ConfigError
from whisperbench.results.names import error_metric
from whisperbench.sweep.grid import sweep_digest

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

Settings = dict[str, str]
Evaluate = Callable[[Settings], Mapping[str, float] | None]
"""Measures a setting and returns its metrics, or None if the measurement failed."""

MAX_REPEATED_PROPOSALS = 100
"""Consecutive proposals of known settings after which the search ends."""
FLOAT_STEP = 0.01
"""Step of a range of fractions (gpu_memory_utilization) that has no step."""
REQUIREMENTS = {
    "wer": "the corpus needs transcripts",
    "energy_wh_per_audio_hour": "it is measured on a GPU",
    "usd_per_audio_hour": "runs without gpu_hourly_usd have none; measure them again with resume=false",
}
"""Condition for a metric, for the error message about a run without it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Search:
    """Definition of a search: values or ranges by option, options that all settings share, and the objective.

    Settings with a WER above `max_wer` percent are rejected (None: no limit).
    """

    space: Mapping[str, tuple[str, ...] | Range]
    fixed: Mapping[str, str]
    sorting: Sorting
    max_wer: float | None
    trials: int
    seed: int

    @classmethod
    def of(cls, options: SweepConfig) -> Search:
        """The search of the options of a sweep.

        Raises:
            ConfigError: every option has one value.
        """
        if options.objective is None:
            raise TypeError("a grid is not a search")
        found = {name: options.axis(name) for name in options.of_benchmark()}
        space = {name: axis for name, axis in found.items() if isinstance(axis, Range) or len(axis) > 1}
        if not space:
            raise ConfigError(
                "Nothing can be searched, because every option has one value. Give lists or ranges, for example "
                "max_num_seqs=64..512 and kv_cache_dtype=auto,fp8."
            )
        fixed = {name: options.texts(name)[0] for name in found if name not in space}
        fixed["repeats"] = str(options.repeats_in_a_run)
        sorting = SORTINGS[options.objective]
        return cls(space, fixed, sorting, options.max_wer, options.trials, options.shared.seed)

    def config(self, settings: Mapping[str, str]) -> BenchmarkConfig:
        """The benchmark's options for one setting."""
        return BenchmarkConfig.for_engine({**self.fixed, **settings})

    @property
    def digest(self) -> str:
        """Identifies the search when it is started again; the number of trials is not part of it."""
        fixed = self.config(self.first)
        return sweep_digest([fixed], space=dict(self.space), metric=self.sorting.metric, max_wer=self.max_wer)

    @property
    def max_settings(self) -> int:
        """Maximum number of settings to measure, which is below `trials` if the lists have fewer combinations."""
        sizes = [len(values) for values in self.space.values() if isinstance(values, tuple)]
        return min(self.trials, math.prod(sizes)) if len(sizes) == len(self.space) else self.trials

    @property
    def first(self) -> dict[str, Any]:
        """The first allowed combination in the order of the lists; of a range, the value nearest to the default.

        Raises:
            ConfigError: no combination is allowed; the message is about the first one.
        """
        axes: list[tuple[Any, ...]] = []
        for name, values in self.space.items():
            kind, default = OPTIONS[name].type, OPTIONS[name].default
            near = default if default is not None else getattr(values, "low", None)
            axes.append(values if isinstance(values, tuple) else (kind(values.nearest(kind(near))),))
        refused: list[ConfigError] = []
        for combination in itertools.product(*axes):
            params = dict(zip(self.space, combination, strict=True))
            try:
                self.config(settings_of(params))
            except ConfigError as error:
                refused.append(error)
            else:
                return params
        raise refused[0]


def search(
    wanted: Search,
    evaluate: Evaluate,
    *,
    storage: Path,
    name: str,
    recall: Callable[[Settings], object] = lambda _settings: None,
) -> tuple[Settings, float] | None:
    """Measure up to `trials` different settings; returns the best one within `max_wer` and its objective, or None.

    The study `name` in the SQLite file `storage` is continued.  Settings that were interrupted or failed are measured
    first.  Settings that are already measured are passed to `recall` instead.

    Raises:
        ConfigError: a finished run lacks the metric to search by.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    complete, failed = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL
    study = _open(optuna, wanted, storage, name)
    known = [settings_of(trial.params) for trial in study.get_trials(states=[complete])]
    for settings in known:
        recall(settings)
    repeated = 0
    while len(known) < wanted.trials and repeated < MAX_REPEATED_PROPOSALS:
        trial = study.ask()
        settings = _propose(trial, wanted)
        if settings in known:
            repeated += 1
            study.tell(trial, state=failed)
            continue
        repeated = 0
        known.append(settings)
        metrics = evaluate(settings)
        if metrics is None:
            study.tell(trial, state=failed)
            continue
        error = error_metric(metrics)
        objective = error if wanted.sorting.metric == "wer" else wanted.sorting.metric
        needed = (objective, *(() if wanted.max_wer is None else (error,)))
        if missing := [metric for metric in needed if metric not in metrics]:
            study.tell(trial, state=failed)
            reason = REQUIREMENTS.get(missing[0], "see its log")
            raise ConfigError(f"A finished run has no {missing[0]}, which the search needs: {reason}.")
        if wanted.max_wer is not None:
            trial.set_constraint("wer", metrics[error] - wanted.max_wer)
        study.tell(trial, metrics[objective], state=complete)
    try:
        best = study.best_trial
    except ValueError:  # no complete trial satisfies the constraint
        return None
    return settings_of(best.params), float(best.value or 0.0)


def settings_of(params: Mapping[str, Any]) -> Settings:
    """The parameters of a trial in the spelling of the command line."""
    return {name: str(round(value, 6) if isinstance(value, float) else value) for name, value in params.items()}


def _open(optuna: Any, wanted: Search, storage: Path, name: str) -> Study:
    """The stored study; settings that were interrupted or failed are queued."""
    storage.parent.mkdir(parents=True, exist_ok=True)
    study: Study = optuna.create_study(
        storage=optuna.storages.RDBStorage(f"sqlite:///{storage}"),
        study_name=name,
        load_if_exists=True,
        direction="maximize" if wanted.sorting.higher_is_better else "minimize",
    )
    # With the same seed, a sampler would repeat the proposals of an earlier start.
    study.sampler = optuna.samplers.TPESampler(seed=wanted.seed + len(study.trials))
    if not study.trials:
        study.enqueue_trial(wanted.first)
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    complete = [trial.params for trial in study.get_trials(states=[optuna.trial.TrialState.COMPLETE])]
    failed = [trial.params for trial in study.get_trials(states=[optuna.trial.TrialState.FAIL]) if trial.params]
    for index, params in enumerate(failed):
        if params not in complete and params not in failed[:index]:
            study.enqueue_trial(params)
    return study


def _propose(trial: Trial, wanted: Search) -> Settings:
    params: dict[str, Any] = {}
    for name, values in wanted.space.items():
        if isinstance(values, tuple):
            params[name] = trial.suggest_categorical(name, values)
        elif OPTIONS[name].type is int:
            low, high, step = int(values.low), int(values.high), int(values.step or 1)
            params[name] = trial.suggest_int(name, low, high, step=step, log=values.step is None)
        else:
            params[name] = trial.suggest_float(name, values.low, values.high, step=values.step or FLOAT_STEP)
    return settings_of(params)
