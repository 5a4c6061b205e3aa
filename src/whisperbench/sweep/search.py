"""Search for the best setting with Optuna's TPE sampler.

The sampler is seeded, so the same command proposes the same settings again as long as they have the same results.  The
caller takes results from earlier sweeps, so an interrupted search continues.  The first setting is `Search.first`, so
the best one is at least as good.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from whisperbench.config.benchmark import OPTIONS, BenchmarkConfig
from whisperbench.config.compare import SORTINGS
from whisperbench.config.sweep import Axis, Range, SweepConfig
from whisperbench.errors import ConfigError
from whisperbench.results.names import error_metric
from whisperbench.sweep.grid import sweep_digest

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Settings = dict[str, str]
Evaluate = Callable[[Settings], Mapping[str, float] | None]
"""Measures a setting and returns its metrics, or None if the measurement failed."""

MAX_REPEATED_PROPOSALS = 100
"""Consecutive proposals of known settings after which the search ends."""


class Search:
    """Definition of a search: values or ranges by option, options that all settings share, and the objective.

    Settings with a WER above `max_wer` percent are rejected (None: no limit).

    Raises:
        ConfigError: every option has one value.
    """

    def __init__(self, options: SweepConfig) -> None:
        axes = {name: options.axis(name) for name in options.of_benchmark()}
        self.space: dict[str, Axis] = {n: axis for n, axis in axes.items() if isinstance(axis, Range) or len(axis) > 1}
        if not self.space:
            raise ConfigError(
                "Nothing can be searched, because every option has one value. Give lists or ranges, for example "
                "max_num_seqs=64..512 and kv_cache_dtype=auto,fp8."
            )
        self._fixed = {name: options.texts(name)[0] for name in axes if name not in self.space}
        self._fixed["repeats"] = str(options.repeats_in_a_run)
        self.sorting = SORTINGS[options.objective or "wer"]
        self.max_wer, self.trials, self.seed = options.max_wer, options.trials, options.shared.seed

    def config(self, settings: Mapping[str, str]) -> BenchmarkConfig:
        """The benchmark's options for one setting."""
        return BenchmarkConfig.for_engine({**self._fixed, **settings})

    @property
    def digest(self) -> str:
        """Identifies the search when it is started again; the number of trials is not part of it."""
        fixed = self.config(settings_of(self.first))
        return sweep_digest([fixed], space=self.space, metric=self.sorting.metric, max_wer=self.max_wer)

    @property
    def max_settings(self) -> int:
        """Maximum number of settings to measure, which is below `trials` if the lists have fewer combinations."""
        return min(self.trials, math.prod(self.trials if isinstance(v, Range) else len(v) for v in self.space.values()))

    @property
    def first(self) -> dict[str, Any]:
        """The first allowed combination in the order of the lists; of a range, the value nearest to the default.

        Raises:
            ConfigError: no combination is allowed; the message is about the first one.
        """
        refused: list[ConfigError] = []
        values = (
            (axis.nearest(OPTIONS[name].default),) if isinstance(axis, Range) else axis
            for name, axis in self.space.items()
        )
        for combination in itertools.product(*values):
            params = dict(zip(self.space, combination, strict=True))
            try:
                self.config(settings_of(params))
            except ConfigError as error:
                refused.append(error)
            else:
                return params
        raise refused[0]


def search(wanted: Search, evaluate: Evaluate) -> tuple[Settings, float] | None:
    """Evaluate up to `trials` different settings; returns the best one within `max_wer` and its objective, or None.

    Raises:
        ConfigError: a finished run lacks the metric to search by.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=wanted.seed),
        direction="maximize" if wanted.sorting.higher_is_better else "minimize",
    )
    study.enqueue_trial(wanted.first)
    space = {name: _distribution(name, axis) for name, axis in wanted.space.items()}
    known: list[Settings] = []
    repeated = 0
    while len(known) < wanted.trials and repeated < MAX_REPEATED_PROPOSALS:
        trial = study.ask(space)
        settings, metrics = settings_of(trial.params), None
        repeated = repeated + 1 if settings in known else 0
        if not repeated:
            known.append(settings)
            metrics = evaluate(settings)
        if metrics is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        error = error_metric(metrics)
        objective = error if wanted.sorting.metric == "wer" else wanted.sorting.metric
        for needed in (objective, *(() if wanted.max_wer is None else (error,))):
            if needed not in metrics:
                raise ConfigError(
                    f"A finished run has no {needed}, which the search needs. A WER needs a corpus with transcripts, "
                    "energy a GPU, and costs gpu_hourly_usd (with resume=false, if the run was measured without it)."
                )
        if wanted.max_wer is not None:
            trial.set_constraint("wer", metrics[error] - wanted.max_wer)
        study.tell(trial, metrics[objective])
    try:
        best = study.best_trial
    except ValueError:  # no complete trial satisfies the constraint
        return None
    return settings_of(best.params), float(best.value or 0.0)


def _distribution(name: str, axis: Axis) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(axis, tuple):
        return CategoricalDistribution(axis)
    if OPTIONS[name].type is int:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.step is None, step=int(axis.step or 1))
    return FloatDistribution(axis.low, axis.high, step=axis.step)


def settings_of(params: Mapping[str, Any]) -> Settings:
    """The parameters of a trial in the spelling of the command line."""
    return {name: str(round(value, 6) if isinstance(value, float) else value) for name, value in params.items()}


def described(settings: Settings) -> str:
    """`max_num_seqs=64,kv_cache_dtype=fp8`."""
    return ",".join(f"{name}={value}" for name, value in settings.items())
