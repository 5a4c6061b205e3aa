"""Runs that are repeats of each other are one system: what a leaderboard is made of.

Pure data; nothing here reads a server.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Iterable

from whisperbench.measure.bootstrap import Interval
from whisperbench.options.benchmark import NOT_PART_OF_A_CONFIGURATION, BenchmarkConfig
from whisperbench.results.names import GIT_DIRTY, WARNINGS
from whisperbench.results.repeats import Identity
from whisperbench.results.run_record import RunRecord

IN_COLUMNS = frozenset({"model", "model_revision", "kv_cache_dtype", "max_num_seqs", "dtype"})
IN_THE_KEYS = frozenset({"corpus", "split", "limit", "language", "long_audio", "load_format"})


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


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class System:
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
    def engine(self) -> str:
        """`vllm 0.32.0`, `vllm-stock 0.32.0`, `transformers 5.19.0`."""
        stock = self.param("front_end") == "stock"
        name = "vllm-stock" if stock else self.param("engine") or "vllm"
        version = self.param("engine_version") or self.param("vllm_version") or ""
        return f"{name} {version.partition('+')[0]}".rstrip()

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
    def cache_and_seqs(self) -> str:
        """`fp8/256`: type of the attention cache, and sequences decoded at once; `batch 16`, of a peer of vLLM."""
        if batch := self.param("batch_size_effective"):
            return f"batch {batch}"
        return f"{self.param('kv_cache_dtype')}/{self.param('max_num_seqs')}"

    @property
    def label(self) -> str:
        """`large-v3 fp8/256`, and the settings that have no column."""
        label = f"{self.model} {self.cache_and_seqs}"
        return f"{label} {self.settings}" if self.settings else label

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes its figures doubtful, as the runs themselves say."""
        said = {run.tags[WARNINGS] for run in self.runs if run.tags.get(WARNINGS)}
        dirty = any(run.tags.get(GIT_DIRTY) == "true" for run in self.runs)
        return (*sorted(said), *(("measured with uncommitted changes",) if dirty else ()))


def systems(records: Iterable[RunRecord]) -> tuple[System, ...]:
    """Records of one group as systems: same digest, model revision, GPU, engine version and clock."""
    found: defaultdict[Identity | str, list[RunRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda run: (run.start_time, run.run_id), reverse=True):
        identity = Identity.of(record.params, record.tags)
        found[identity if identity.config_digest else record.run_id].append(record)
    return tuple(System(tuple(runs)) for runs in found.values())
