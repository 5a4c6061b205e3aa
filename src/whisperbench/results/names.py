"""Public names of tags, resolved params and metrics, and the units of the metrics.

A new metric is declared here and computed in `results.run_data`; the summary and the leaderboard columns are derived
from the declaration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container

SCHEMA = "1"
"""Version of the bundle format and of the extent of the timed region; part of the speed key."""

KIND = "whisperbench.kind"
SCHEMA_TAG = "whisperbench.schema"
ACCURACY_KEY = "whisperbench.accuracy_key"
SPEED_KEY = "whisperbench.speed_key"
SIGNATURE = "whisperbench.signature"
CONFIG_DIGEST = "whisperbench.config_digest"
RANDOM_WEIGHTS = "whisperbench.random_weights"
WARNINGS = "whisperbench.warnings"
DISTURBED = "whisperbench.disturbed"
"""Other programs that used the machine in the timed region; the speed of such a run is not ranked."""
FAILURE = "whisperbench.failure"
DATASET_DIGEST = "dataset.digest"
GIT_DIRTY = "git.dirty"
COMMIT = "mlflow.source.git.commit"
MODEL, CORPUS, GPU = "model", "corpus", "gpu"
"""Tags with short names (`results.run_name`) for filters in MLflow; the params hold the full names."""

PROGRESS, REPEATS, BEST = "system/progress_", "repeats/", "best/"
"""Prefixes of further metrics: progress in the timed region, the values of each repeat, the best of a sweep."""

RESOLVED_PARAMS = (
    "model_id", "model_revision_resolved", "gpu_name", "gpu_count", "gpu_power_limit_watts", "cpu_cores",
    "dtype_effective", "kv_cache_dtype_effective",
    "max_num_batched_tokens_effective", "mel_device_effective", "batch_size_effective", "engines", "hosts",
    "vllm_version", "engine_version", "engine_deviations", "torch_version", "cuda_driver", "normalizer",
    "cuda_mps",
)  # fmt: skip
"""Params that are resolved by the run and are not options; one without a value is absent from a run."""


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """Declaration of a metric; a metric that was not measured is absent from a run.

    Attributes:
        digits: number of digits after the decimal point.
        heading: heading of its leaderboard column; None = no column is derived from the declaration.
        rate: whether the column is always shown.
        timed: whether it depends on the speed, so that it is not read from a disturbed run.
    """

    name: str
    unit: str = ""
    in_summary: bool = True
    heading: str | None = None
    digits: int = 2
    rate: bool = False
    timed: bool = False


# In the order of the summary.
METRICS = (
    Metric("wer", "%"),
    Metric("wer_ci_low", "%", in_summary=False),
    Metric("wer_ci_high", "%", in_summary=False),
    Metric("cer", "%"),
    Metric("cer_ci_low", "%", in_summary=False),
    Metric("cer_ci_high", "%", in_summary=False),
    Metric("invented_words_per_minute", "words per audio minute", heading="invented words/min"),
    Metric("invented_characters_per_minute", "characters per audio minute", heading="invented characters/min"),
    Metric("substitutions", in_summary=False, digits=0),
    Metric("deletions", in_summary=False, digits=0),
    Metric("insertions", in_summary=False, digits=0),
    Metric("reference_words", in_summary=False, digits=0),
    Metric("reference_characters", in_summary=False, digits=0),
    Metric("reqs_per_sec", "utterances/s", heading="reqs/sec", rate=True, timed=True),
    Metric("reqs_per_sec_per_gpu", "utterances/s", heading="reqs/sec per GPU", timed=True),
    Metric("rtfx", "audio s per wall s", heading="RTFx", digits=1, rate=True, timed=True),
    Metric("wall_seconds", "s", timed=True),
    Metric("client_cpu_seconds", "s", in_summary=False),
    Metric("other_cpu_percent", "%", in_summary=False, digits=0),
    Metric("audio_seconds", "s"),
    Metric("utterances", digits=0),
    Metric("utterances_over_30s", digits=0),
    Metric("silent_utterances", digits=0),
    Metric("repetition_loops", digits=0),
    Metric("retried_windows", digits=0),
    Metric("output_tokens_per_sec", "tokens/s", timed=True),
    Metric("latency_p50_ms", "ms", digits=0, timed=True),
    Metric("latency_p95_ms", "ms", digits=0, timed=True),
    Metric("scaling_efficiency", "%", heading="scaling %", digits=1, timed=True),
    Metric("slowest_engine_percent", "%"),
    Metric("tail_seconds", "s", timed=True),
    Metric("gpu_util_mean", "%", timed=True),
    Metric("gpu_memory_peak_mib", "MiB", digits=0),
    Metric("gpu_power_mean_watts", "W", timed=True),
    Metric("energy_wh_per_audio_hour", "Wh per audio hour", heading="Wh per audio hour", timed=True),
    Metric("usd_per_audio_hour", "USD per audio hour", heading="¢ per audio hour", digits=5, timed=True),
    Metric("engine_load_seconds", "s"),
    Metric("warmup_seconds", "s"),
)


def error_metric(metrics: Container[str]) -> str:
    """The error rate that a run is ranked by: `wer`, or `cer` where the unit is the character and `wer` is absent."""
    return "cer" if "wer" not in metrics and "cer" in metrics else "wer"
