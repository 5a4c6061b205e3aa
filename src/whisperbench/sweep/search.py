"""Finding the best setting: Optuna proposes, an objective measures, the study is stored and goes on where it stopped.

The objective is any callable, so that nothing here starts an engine.  The first setting is
`Search.first`: the winner is never worse than that.

A setting is first tried on a part of the corpus only where that saves time (`first_rung`).  It is
given up after that when its rate is below the median of what the finished settings had on the same
part, or when the lower end of its WER's interval is above the bound: a WER of a part alone says too
little about the whole.
"""

from __future__ import annotations

import dataclasses
import enum
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from whisperbench.errors import ConfigError
from whisperbench.options.benchmark import MAIN
from whisperbench.options.record import kind_of, text_of
from whisperbench.sweep.space import Search, Settings, Space

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

PRUNING_AFTER = 4  # finished settings: a median of fewer means little
RUNG_FRACTION = 0.1
RUNG_FILLS = 4  # times that the corpus's part fills the engine's sequences: fewer measure its start and its end
WORTH_A_RUNG = 1.25  # seconds of transcribing per second of loading from which a first rung saves time
PATIENCE = 10  # known settings proposed in a row, after which they are drawn at random
MOST_REPETITIONS = 100  # in a row: there are no others
MEASURED = "measured"
NEEDS = {
    "wer": "the corpus needs transcripts",
    "energy_wh_per_audio_hour": "it is read from a GPU",
    "usd_per_audio_hour": "runs without gpu_hourly_usd have none; measure them again with resume=false",
}
"""What a metric that is absent needs."""
SHARE_STEP = 0.01  # of a range of gpu_memory_utilization that names no step


class Look(enum.Enum):
    """What a first look at a setting says of it."""

    PASSED = enum.auto()
    PRUNED = enum.auto()
    FAILED = enum.auto()


class Evaluate(Protocol):
    """Measure settings on the first `limit` utterances (None: on all); None when that failed."""

    def __call__(self, settings: Settings, limit: int | None) -> Mapping[str, float] | None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Best:
    """The winner: its settings, the value of the objective, and its trial's number from 0."""

    settings: Settings
    value: float
    trial: int


def search(
    wanted: Search,
    evaluate: Evaluate,
    *,
    storage: Path,
    name: str,
    rung: Callable[[Mapping[str, float]], int | None] = lambda _metrics: None,
    recall: Callable[[Settings], None] = lambda _settings: None,
) -> Best | None:
    """Measure `trials` different settings, fewer where there are no more; the best that keeps `max_wer`.

    The study `name` in the SQLite file `storage` is continued: settings that were cut off or failed are measured
    first, one that is known is not measured again.  `rung` tells from a finished setting's metrics how
    many utterances a first look takes (None: no first look).  `recall` is told each setting that an
    earlier start has measured.

    Returns:
        None when no setting could be measured within the bound.

    Raises:
        ConfigError: a finished run has no value to search by.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    study = _open(optuna, wanted, storage, name)
    earlier = [t for t in study.get_trials(deepcopy=False) if t.user_attrs.get(MEASURED)]
    known = {tuple(t.user_attrs["settings"].items()) for t in earlier}
    for finished in earlier:
        if "metrics" in finished.user_attrs:
            recall(finished.user_attrs["settings"])
    guided, unguided = study.sampler, optuna.samplers.RandomSampler(seed=wanted.seed)
    repetitions = 0
    while len(known) < wanted.trials and repetitions < MOST_REPETITIONS:
        study.sampler = guided if repetitions < PATIENCE else unguided
        trial = study.ask()
        settings = _suggest(trial, wanted.space)
        if tuple(settings.items()) in known:
            repetitions += 1
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        repetitions = 0
        _measure(study, trial, settings, wanted, evaluate, rung)
        known.add(tuple(settings.items()))
    return _best(study)


def first_rung(metrics: Mapping[str, float], most_seqs: int) -> int | None:
    """How many utterances a first look takes, or None where it costs more than it saves.

    A look costs an engine start; with half of the settings given up after it, it saves time when
    transcribing takes more than 1.25 times the start.
    """
    utterances, wall = int(metrics.get("utterances", 0)), metrics.get("wall_seconds", 0.0)
    load = metrics.get("engine_load_seconds", 0.0) + metrics.get("warmup_seconds", 0.0)
    part = round(utterances * RUNG_FRACTION)
    return part if wall > WORTH_A_RUNG * load and part >= RUNG_FILLS * most_seqs else None


def _open(optuna: Any, wanted: Search, storage: Path, name: str) -> Study:
    storage.parent.mkdir(parents=True, exist_ok=True)
    store = optuna.storages.RDBStorage(f"sqlite:///{storage}")
    study: Study = optuna.create_study(
        storage=store,
        study_name=name,
        load_if_exists=True,
        direction="maximize" if wanted.sorting.higher_is_better else "minimize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=PRUNING_AFTER),
    )
    # A sampler that starts again with the same seed would propose again what it proposed before.
    study.sampler = optuna.samplers.TPESampler(seed=wanted.seed + len(study.trials))
    if not study.trials:
        study.enqueue_trial(wanted.first)
    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    for params in _unfinished(study):
        study.enqueue_trial(params)
    return study


def _unfinished(study: Study) -> list[dict[str, Any]]:
    """What was cut off or failed, and was not measured at another start, once each."""
    done = [t.params for t in study.trials if t.user_attrs.get(MEASURED)]
    left = [t.params for t in study.trials if t.params and t.params not in done]
    return [params for place, params in enumerate(left) if params not in left[:place]]


def _suggest(trial: Trial, space: Space) -> Settings:
    settings: Settings = {}
    for name, values in space.items():
        if isinstance(values, tuple):
            settings[name] = trial.suggest_categorical(name, values)
        elif kind_of(MAIN[name]) is int:
            low, high, step = int(values.low), int(values.high), int(values.step or 1)
            settings[name] = str(trial.suggest_int(name, low, high, step=step, log=values.step is None))
        else:
            share = trial.suggest_float(name, values.low, values.high, step=values.step or SHARE_STEP)
            settings[name] = text_of(round(share, 6))
    return settings


def _measure(
    study: Study,
    trial: Trial,
    settings: Settings,
    wanted: Search,
    evaluate: Evaluate,
    rung: Callable[[Mapping[str, float]], int | None],
) -> None:
    from optuna.trial import TrialState

    trial.set_user_attr("settings", settings)
    look = _first_look(trial, settings, wanted, evaluate, _rung_of(study, rung))
    found = evaluate(settings, None) if look is Look.PASSED else None
    if look is Look.PRUNED:
        trial.set_user_attr(MEASURED, True)
        study.tell(trial, state=TrialState.PRUNED)
    elif found is None:
        study.tell(trial, state=TrialState.FAIL)  # perhaps the machine's fault: the next start tries it again
    elif missing := wanted.missing_from(found):
        study.tell(trial, state=TrialState.FAIL)
        raise ConfigError(f"A finished run has no {missing} to search by: {NEEDS.get(missing, 'see its log')}.")
    else:
        trial.set_user_attr("metrics", dict(found))
        if wanted.max_wer is not None:
            trial.set_constraint("wer", found["wer"] - wanted.max_wer)
        trial.set_user_attr(MEASURED, True)
        study.tell(trial, found[wanted.sorting.metric], state=TrialState.COMPLETE)


def _first_look(trial: Trial, settings: Settings, wanted: Search, evaluate: Evaluate, limit: int | None) -> Look:
    """Whether the whole corpus is worth measuring; settings that fail on a part fail on the whole."""
    if limit is None:
        return Look.PASSED
    look = evaluate(settings, limit)
    metric = wanted.sorting.metric
    if look is None or metric not in look:
        return Look.FAILED
    trial.report(look[metric], step=limit)
    too_wrong = wanted.max_wer is not None and look.get("wer_ci_low", 0.0) > wanted.max_wer
    pruned = too_wrong or (metric != "wer" and trial.should_prune())
    return Look.PRUNED if pruned else Look.PASSED


def _rung_of(study: Study, rung: Callable[[Mapping[str, float]], int | None]) -> int | None:
    """The first look that the study's first finished setting allows: one size for the whole study."""
    finished = [t for t in study.get_trials(deepcopy=False) if t.user_attrs.get("metrics")]
    return rung(finished[0].user_attrs["metrics"]) if finished else None


def _best(study: Study) -> Best | None:
    try:
        best = study.best_trial
    except ValueError:
        return None
    return Best(dict(best.user_attrs["settings"]), float(best.value or 0.0), best.number)
