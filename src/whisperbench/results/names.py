"""The names that people and scripts rely on: a run's tags, its facts, and its metrics with their units.

A new metric is named here and measured elsewhere: the summary of a run and the columns of a leaderboard follow.
"""

from __future__ import annotations

import dataclasses

SCHEMA = "1"
"""Version of the record and of what the clock covers; part of the speed key."""

KIND = "whisperbench.kind"
SCHEMA_TAG = "whisperbench.schema"
ACCURACY_KEY = "whisperbench.accuracy_key"
SPEED_KEY = "whisperbench.speed_key"
SIGNATURE = "whisperbench.signature"
CONFIG_DIGEST = "whisperbench.config_digest"
RANDOM_WEIGHTS = "whisperbench.random_weights"
WARNINGS = "whisperbench.warnings"
FAILURE = "whisperbench.failure"
DATASET_DIGEST = "dataset.digest"
GIT_DIRTY = "git.dirty"
MODEL, CORPUS, GPU = "model", "corpus", "gpu"
"""Tags with short names (`results.run_name`), for filters and columns; the exact ones are params."""

PROGRESS, REPEATS, BEST = "system/progress_", "repeats/", "best/"
"""Metrics of other kinds, by the beginning of their names: while the clock runs, of each repeat, of a sweep's runs."""

RESOLVED_PARAMS = (
    "model_id", "model_revision_resolved", "gpu_name", "gpu_count", "dtype_effective", "kv_cache_dtype_effective",
    "max_num_batched_tokens_effective", "features_effective", "batch_size_effective", "engines", "hosts",
    "vllm_version", "engine_version", "engine_deviations", "torch_version", "cuda_driver", "normalizer",
    "cuda_mps",
)  # fmt: skip
"""Params that are no options: what was found out.  One that is not known is absent."""


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """A metric, in the order of the summary; one that was not measured is absent from a run.

    `digits` stand after the point.  `heading` names its column in a leaderboard (None: it has none, or one of its own).
    A `rate` is read with the value of each repeat, and its column is there even where nothing was measured.
    """

    name: str
    unit: str = ""
    in_summary: bool = True
    heading: str | None = None
    digits: int = 2
    rate: bool = False


METRICS = (
    Metric("wer", "%"),
    Metric("wer_ci_low", "%", in_summary=False),
    Metric("wer_ci_high", "%", in_summary=False),
    Metric("cer", "%"),
    Metric("substitutions", in_summary=False, digits=0),
    Metric("deletions", in_summary=False, digits=0),
    Metric("insertions", in_summary=False, digits=0),
    Metric("reference_words", in_summary=False, digits=0),
    Metric("reqs_per_sec", "utterances/s", heading="reqs/sec", rate=True),
    Metric("reqs_per_sec_per_gpu", "utterances/s", heading="reqs/sec per GPU"),
    Metric("rtfx", "audio s per wall s", heading="RTFx", digits=1, rate=True),
    Metric("wall_seconds", "s"),
    Metric("client_cpu_seconds", "s", in_summary=False),
    Metric("audio_seconds", "s"),
    Metric("utterances", digits=0),
    Metric("utterances_over_30s", digits=0),
    Metric("repetition_loops", digits=0),
    Metric("retried_windows", digits=0),
    Metric("output_tokens_per_sec", "tokens/s"),
    Metric("latency_p50_ms", "ms", digits=0),
    Metric("latency_p95_ms", "ms", digits=0),
    Metric("scaling_efficiency", "%", heading="scaling %", digits=1),
    Metric("slowest_engine_percent", "%"),
    Metric("tail_seconds", "s"),
    Metric("gpu_util_mean", "%"),
    Metric("gpu_memory_peak_mib", "MiB", digits=0),
    Metric("gpu_power_mean_watts", "W"),
    Metric("energy_wh_per_audio_hour", "Wh per audio hour", heading="Wh per audio hour"),
    Metric("usd_per_audio_hour", "USD per audio hour", heading="¢ per audio hour", digits=5),
    Metric("engine_load_seconds", "s"),
    Metric("warmup_seconds", "s"),
)
