"""Runs that are repeats of each other are one system: what a leaderboard is made of.

Pure data; nothing here reads a server.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable

from whisperbench.measure.bootstrap import Interval
from whisperbench.options.benchmark import NOT_PART_OF_A_CONFIGURATION, PEERS, BenchmarkConfig
from whisperbench.results.names import GIT_DIRTY, WARNINGS
from whisperbench.results.repeats import Identity
from whisperbench.results.run_record import RunRecord

IN_COLUMNS = frozenset(
    {"model", "model_revision", "engine", "front_end", "kv_cache_dtype", "max_num_seqs", "batch_size", "dtype"}
    | {"padding_stride", "gpus", "engines_per_gpu"}
)
IN_THE_KEYS = frozenset({"corpus", "split", "limit", "language", "long_audio", "load_format"})


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """The values of a rate over all repeats, at least one."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

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
    def engine_name(self) -> str:
        """`vllm`, `vllm-stock`, `transformers`: the option, under one name where it has two."""
        return "vllm-stock" if self.param("front_end") == "stock" else self.param("engine") or "vllm"

    @property
    def is_peer(self) -> bool:
        """Not vLLM: it has no attention cache of a type, and no number of sequences."""
        return self.engine_name in PEERS

    @property
    def engine(self) -> str:
        """`vllm 0.32.0`, `vllm-stock 0.32.0`, `transformers 5.19.0`."""
        version = self.param("engine_version") or ""
        return f"{self.engine_name} {version.partition('+')[0]}".rstrip()

    @property
    def padding_stride(self) -> int | None:
        """Of how many positions of the padding the encoder keeps one; None for a peer, which knows all of them."""
        return None if self.is_peer else int(self.param("padding_stride") or 1)

    @property
    def engines(self) -> int:
        """Engines that worked together: the fact, or what was asked for."""
        asked = (int(self.param(name) or 1) for name in ("gpus", "engines_per_gpu"))
        return int(self.param("engines") or math.prod(max(1, count) for count in asked))

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
    def batch(self) -> str:
        """`fp8/256`: type of the attention cache, and sequences decoded at once; of a peer its own `batch 16`."""
        if not self.is_peer:
            return f"{self.param('kv_cache_dtype')}/{self.param('max_num_seqs')}"
        size = self.param("batch_size_effective") or self.param("batch_size")
        return f"batch {size}" if size not in (None, "0") else "its own batch"

    @property
    def setting(self) -> str:
        """Everything that tells it from another system with the same model and GPU, but revisions and versions:
        `fp8/256 stride 16, 2 engines`, `faster-whisper batch 16`."""
        name = "" if self.engine_name == "vllm" else f"{self.engine_name} "
        more = [
            *([f"stride {self.padding_stride}"] if (self.padding_stride or 1) > 1 else []),
            *([f"{self.engines} engines"] if self.engines > 1 else []),
            *(["CUDA MPS"] if self.param("cuda_mps") else []),
            *([self.settings] if self.settings else []),
        ]
        return f"{name}{self.batch} {', '.join(more)}".rstrip()

    @property
    def label(self) -> str:
        """`large-v3 fp8/256`, `large-v3 faster-whisper batch 16`: the model and its setting."""
        return f"{self.model} {self.setting}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes its figures doubtful, as the runs themselves say."""
        said = {run.tags[WARNINGS] for run in self.runs if run.tags.get(WARNINGS)}
        dirty = any(run.tags.get(GIT_DIRTY) == "true" for run in self.runs)
        return (*sorted(said), *(("measured with uncommitted changes",) if dirty else ()))


def systems(records: Iterable[RunRecord]) -> tuple[System, ...]:
    """Records of one group as systems: same digest, model revision, GPU, engine version and clock, and CUDA MPS."""
    found: defaultdict[Identity | str, list[RunRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda run: (run.start_time, run.run_id), reverse=True):
        identity = Identity.of(record.params, record.tags)
        found[identity if identity.config_digest else record.run_id].append(record)
    return tuple(System(tuple(runs)) for runs in found.values())
