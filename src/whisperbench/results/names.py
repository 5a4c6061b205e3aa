"""Public names: the tags of a run, the params that were resolved, and the metrics with their units.

A new metric is declared here and computed in `results.run_data`; the summary and the leaderboard columns follow.
"""

from __future__ import annotations

import dataclasses

SCHEMA = "1"
"""Version of the record and of what the timed region covers; part of the speed key."""

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
"""Tags with short names (`results.run_name`), for filters and columns; the full names are params."""

PROGRESS, REPEATS, BEST = "system/progress_", "repeats/", "best/"
"""Prefixes of other metrics: progress during the timed region, values of each repeat, best values of a sweep."""

RESOLVED_PARAMS = (
    "model_id", "model_revision_resolved", "gpu_name", "gpu_count", "dtype_effective", "kv_cache_dtype_effective",
    "max_num_batched_tokens_effective", "mel_device_effective", "batch_size_effective", "engines", "hosts",
    "vllm_version", "engine_version", "engine_deviations", "torch_version", "cuda_driver", "normalizer",
    "cuda_mps",
)  # fmt: skip
"""Params that are not options but were resolved when the run started; an unknown one is absent."""


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """A metric, in the order of the summary; one that was not measured is absent from a run.

    `digits` are those after the decimal point.  `heading` is that of its leaderboard column (None: no generic column).
    A `rate` is read with the value of each repeat, and its column is always shown.
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
