"""Runs that are repeats of each other form one system, which is one row of a leaderboard."""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable

from whisperbench.config.benchmark import NOT_PART_OF_A_CONFIGURATION, PEERS, BenchmarkConfig
from whisperbench.results.names import GIT_DIRTY, WARNINGS
from whisperbench.results.record import RunIdentity, RunRecord
from whisperbench.results.run_name import NOT_IN_A_LABEL
from whisperbench.stats.bootstrap import Interval

SHOWN_ELSEWHERE = NOT_PART_OF_A_CONFIGURATION | {
    *("model", "model_revision", "engine", "front_end", "kv_cache_dtype", "max_num_seqs", "batch_size", "dtype"),
    *("padding_stride", "gpus", "engines_per_gpu"),
    *("corpus", "split", "limit", "language", "long_audio", "load_format"),
}
"""Options with a column of their own, or in the comparability keys."""
DEFAULTS = {name: value for name, value in BenchmarkConfig().as_params().items() if name not in SHOWN_ELSEWHERE}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class System:
    """Runs that are repeats of each other, newest first."""

    runs: tuple[RunRecord, ...]

    @property
    def newest(self) -> RunRecord:
        return self.runs[0]

    @property
    def typical(self) -> RunRecord:
        """The run with the median WER (the lower of the middle two); the newest if no run has a WER."""
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

    def values(self, metric: str) -> tuple[float, ...]:
        """The values of a rate over all repeats of all runs."""
        return tuple(value for run in self.runs for value in run.values(metric))

    def median(self, metric: str) -> float | None:
        if metric == "wer":
            return self.wer
        values = self.values(metric)
        return statistics.median(values) if values else None

    def param(self, name: str) -> str | None:
        return self.newest.params.get(name)

    @property
    def model(self) -> str:
        """The model as it was requested; of a local checkpoint the name of the directory."""
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
        """`vllm`, `vllm-stock`, `transformers`."""
        return "vllm-stock" if self.param("front_end") == "stock" else self.param("engine") or "vllm"

    @property
    def is_peer(self) -> bool:
        """Not vLLM, so without a KV cache type and a maximum number of sequences."""
        return self.engine_name in PEERS

    @property
    def engine(self) -> str:
        """`vllm 0.32.0`, `vllm-stock 0.32.0`, `transformers 5.19.0`."""
        version = self.param("engine_version") or ""
        return f"{self.engine_name} {version.partition('+')[0]}".rstrip()

    @property
    def padding_stride(self) -> int | None:
        """The encoder keeps every n-th position of the padding; None for an engine without this option."""
        return None if self.is_peer else int(self.param("padding_stride") or 1)

    @property
    def engines(self) -> int:
        """Engines that worked together, as found; else as requested."""
        requested = (int(self.param(name) or 1) for name in ("gpus", "engines_per_gpu"))
        return int(self.param("engines") or math.prod(max(1, count) for count in requested))

    @property
    def gpu_count(self) -> int:
        """At least 1; a CPU counts as one device."""
        return max(1, int(self.param("gpu_count") or 1))

    @property
    def gpu(self) -> str:
        """`NVIDIA H100 80GB HBM3`, `4 × NVIDIA A10`, or the name of a CPU."""
        return self.newest.gpu if self.gpu_count == 1 else f"{self.gpu_count} × {self.newest.gpu}"

    @property
    def short_gpu(self) -> str:
        """`H100 80GB`."""
        return " ".join(re.sub(r"[ -]+", " ", NOT_IN_A_LABEL.sub("", self.gpu)).split())

    @property
    def speed_key(self) -> str:
        return self.newest.speed_key or ""

    @property
    def other_settings(self) -> str:
        """Engine options without a column that differ from their defaults: `quantization=fp8, enforce_eager=true`."""
        params = self.newest.params
        return ", ".join(f"{n}={params[n]}" for n, default in DEFAULTS.items() if params.get(n, default) != default)

    @property
    def batch(self) -> str:
        """`fp8/256`: KV cache type and maximum number of sequences; `batch 16` for an engine other than vLLM."""
        if not self.is_peer:
            return f"{self.param('kv_cache_dtype')}/{self.param('max_num_seqs')}"
        size = self.param("batch_size_effective") or self.param("batch_size")
        return f"batch {size}" if size not in (None, "0") else "its own batch"

    @property
    def beside_batch(self) -> str:
        """The rest of the setting: `stride 16, 2 engines, CUDA MPS, quantization=fp8`."""
        parts = [
            f"stride {self.padding_stride}" if (self.padding_stride or 1) > 1 else "",
            f"{self.engines} engines" if self.engines > 1 else "",
            "CUDA MPS" if self.param("cuda_mps") else "",
            self.other_settings,
        ]
        return ", ".join(filter(None, parts))

    @property
    def description(self) -> str:
        """What distinguishes it from systems of the same model, GPU and versions: `fp8/256 stride 16, 2 engines`."""
        name = "" if self.engine_name == "vllm" else self.engine_name
        return " ".join(filter(None, (name, self.batch, self.beside_batch)))

    @property
    def label(self) -> str:
        """`large-v3 fp8/256`, `large-v3 faster-whisper batch 16`."""
        return f"{self.model} {self.description}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt its figures, as its runs recorded them."""
        recorded = {run.tags[WARNINGS] for run in self.runs if run.tags.get(WARNINGS)}
        dirty = any(run.tags.get(GIT_DIRTY) == "true" for run in self.runs)
        return (*sorted(recorded), *(("measured with uncommitted changes",) if dirty else ()))


def systems(records: Iterable[RunRecord]) -> tuple[System, ...]:
    """Records of one group as systems, grouped by `RunIdentity`; runs without a config digest are not repeats of
    any."""
    found: defaultdict[RunIdentity | str, list[RunRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda run: (run.start_time, run.run_id), reverse=True):
        identity = RunIdentity.of(record.params, record.tags)
        found[identity if identity.config_digest else record.run_id].append(record)
    return tuple(System(tuple(runs)) for runs in found.values())
