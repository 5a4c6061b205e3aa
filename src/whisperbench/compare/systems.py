"""Run records, and the configurations that they are repeats of: what a leaderboard is made of.

Pure data; nothing here reads a server.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping

from whisperbench.measure.bootstrap import Interval
from whisperbench.options import NOT_PART_OF_A_CONFIGURATION, BenchmarkConfig
from whisperbench.results.contents import ACCURACY_KEY, CONFIG_DIGEST, GIT_DIRTY, RANDOM_WEIGHTS, SPEED_KEY, WARNINGS
from whisperbench.results.repeats import Identity

LARGEST = 1e300
"""MLflow stores infinity as 1.8e308; nothing that is measured comes near."""

IN_COLUMNS = frozenset({"model", "model_revision", "kv_cache_dtype", "max_num_seqs", "dtype"})
IN_THE_KEYS = frozenset({"corpus", "split", "limit", "language", "long_audio", "load_format"})


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RunRecord:
    """One run as the tracking server holds it; `history` has a metric's repeats where there were several."""

    run_id: str
    experiment_id: str
    experiment: str
    name: str
    user: str
    start_time: datetime.datetime
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    history: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)

    def metric(self, name: str) -> float | None:
        """A metric's value; None where it was not measured, or is no number (NaN, infinity)."""
        value = self.metrics.get(name)
        return value if value is not None and math.isfinite(value) and abs(value) < LARGEST else None

    def values(self, name: str) -> tuple[float, ...]:
        """A metric's repeats, or its one value."""
        value = self.metric(name)
        return tuple(self.history.get(name, ())) or (() if value is None else (value,))

    @property
    def accuracy_key(self) -> str | None:
        return self.tags.get(ACCURACY_KEY)

    @property
    def speed_key(self) -> str | None:
        return self.tags.get(SPEED_KEY)

    @property
    def config_digest(self) -> str | None:
        return self.tags.get(CONFIG_DIGEST)

    @property
    def random_weights(self) -> bool:
        return self.tags.get(RANDOM_WEIGHTS) == "true"

    @property
    def gpu(self) -> str:
        return self.params.get("gpu_name", "unknown")


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """The values of a rate over all repeats, at least one."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    @property
    def n(self) -> int:
        return len(self.values)

    def overlaps(self, other: Spread) -> bool:
        """Whether the difference lies inside the spread: the two ranges have a value in common."""
        return self.low <= other.high and other.low <= self.high


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Configuration:
    """Runs that are repeats of each other, newest first: one row of a leaderboard."""

    runs: tuple[RunRecord, ...]

    @property
    def newest(self) -> RunRecord:
        return self.runs[0]

    @property
    def typical(self) -> RunRecord:
        """The run with the median WER (the lower of the middle two); the newest where no run has a WER."""
        scored = [(run.metric("wer"), run.run_id, run) for run in self.runs]
        ordered = sorted((wer, run_id, run) for wer, run_id, run in scored if wer is not None)
        return ordered[(len(ordered) - 1) // 2][2] if ordered else self.newest

    @property
    def wer(self) -> float | None:
        return self.typical.metric("wer")

    @property
    def interval(self) -> Interval | None:
        low, high = self.typical.metric("wer_ci_low"), self.typical.metric("wer_ci_high")
        return None if low is None or high is None else Interval(low, high)

    def spread(self, metric: str) -> Spread | None:
        values = tuple(value for run in self.runs for value in run.values(metric))
        return Spread(values) if values else None

    def median(self, metric: str) -> float | None:
        if metric == "wer":
            return self.wer
        spread = self.spread(metric)
        return spread.median if spread else None

    def param(self, name: str) -> str | None:
        return self.newest.params.get(name)

    @property
    def model(self) -> str:
        """The model as it was asked for; of a local checkpoint the directory's name."""
        model = self.param("model") or "unknown"
        return model.rstrip("/").rpartition("/")[2] if model.startswith(("/", ".", "~")) else model

    @property
    def model_id(self) -> str:
        return self.param("model_id") or self.model

    @property
    def revision(self) -> str | None:
        return self.param("model_revision_resolved") or self.param("model_revision")

    @property
    def dtype(self) -> str | None:
        return self.param("dtype_effective") or self.param("dtype")

    @property
    def gpu(self) -> str:
        """`NVIDIA H100 80GB HBM3`, `4 × NVIDIA A10`, or the name of a CPU."""
        count = self.param("gpu_count") or "1"
        return self.newest.gpu if count in ("0", "1") else f"{count} × {self.newest.gpu}"

    @property
    def speed_key(self) -> str:
        return self.newest.speed_key or ""

    @property
    def users(self) -> tuple[str, ...]:
        return tuple(sorted({run.user for run in self.runs}))

    @property
    def settings(self) -> str:
        """Engine options away from their defaults that have no column: `quantization=fp8, enforce_eager=true`."""
        hidden = IN_COLUMNS | IN_THE_KEYS | NOT_PART_OF_A_CONFIGURATION
        params = self.newest.params
        return ", ".join(
            f"{name}={params[name]}"
            for name, default in BenchmarkConfig().as_params().items()
            if name not in hidden and params.get(name, default) != default
        )

    @property
    def label(self) -> str:
        """`large-v3 fp8/256`, and the settings that have no column."""
        label = f"{self.model} {self.param('kv_cache_dtype')}/{self.param('max_num_seqs')}"
        return f"{label} {self.settings}" if self.settings else label

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes its figures doubtful, as the runs themselves say."""
        said = {run.tags[WARNINGS] for run in self.runs if run.tags.get(WARNINGS)}
        dirty = any(run.tags.get(GIT_DIRTY) == "true" for run in self.runs)
        return (*sorted(said), *(("measured with uncommitted changes",) if dirty else ()))


def configurations(records: Iterable[RunRecord]) -> tuple[Configuration, ...]:
    """Records of one group as configurations: same digest, model revision, GPU, engine version and clock."""
    found: defaultdict[Identity | str, list[RunRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda run: (run.start_time, run.run_id), reverse=True):
        identity = Identity.of(record.params, record.tags)
        found[identity if identity.config_digest else record.run_id].append(record)
    return tuple(Configuration(tuple(runs)) for runs in found.values())


def fields_of(key: str) -> dict[str, str]:
    """`dataset=ab12|limit=0` as a dictionary."""
    return {name: value for name, _, value in (part.partition("=") for part in key.split("|"))}


def differing(expected: Mapping[str, str], found: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Field to (expected, found), for the fields of two keys that differ."""
    names = dict.fromkeys((*expected, *found))
    pairs = {name: (expected.get(name, "not set"), found.get(name, "not set")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
