"""Public names of tags and metrics, and the units of the metrics.

A new metric is declared here and computed in `results.run_data`; the summary and the leaderboard columns are derived
from the declaration.
"""

from __future__ import annotations

import dataclasses
import math

SCHEMA = "1"
"""Version of the bundle format and of the extent of the timed region; part of the speed key."""

KIND = "whisperbench.kind"
SCHEMA_TAG = "whisperbench.schema"
ACCURACY_KEY = "whisperbench.accuracy_key"
SPEED_KEY = "whisperbench.speed_key"
SIGNATURE = "whisperbench.signature"
CONFIG_DIGEST = "whisperbench.config_digest"
OPTIONS_TAG = "whisperbench.options"
"""The options that differ from their defaults, as requested (`results.keys.key`)."""
WARNINGS = "whisperbench.warnings"
FAILURE = "whisperbench.failure"
DATASET_DIGEST = "dataset.digest"
GIT_DIRTY = "git.dirty"
CORPUS = "corpus"
"""The data in few words (`results.run_name.data_label`), for filters in MLflow."""

REPEATS = "whisperbench.repeats"
"""The rates of all repeats (`results.keys.key`).  As metrics, their plots would precede the results in MLflow."""
PROGRESS = "progress"
"""Finished utterances and their rate, only while a run is measured."""
BEST = "best/"
"""Prefix of the metrics of a sweep: the best values of its runs."""

SIGNIFICANT_DIGITS = 3
"""Minimum number of significant digits of a metric, so that a rate of 0.0412 utterances/s is not 0.04."""


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """Declaration of a metric; a metric that was not measured is absent from a run.

    Attributes:
        digits: number of digits after the decimal point, in a run and wherever the value is printed.
        heading: heading of its leaderboard column; None = no column is derived from the declaration.
        rate: whether the values of all repeats are read for comparisons; the column of a rate is always shown.
    """

    name: str
    unit: str = ""
    in_summary: bool = True
    heading: str | None = None
    digits: int = 2
    rate: bool = False

    def rounded(self, value: float) -> float:
        """The value as it is logged: 2.31, 152.37, 0.0412."""
        magnitude = math.floor(math.log10(abs(value))) if value else 0
        return round(value, max(self.digits, SIGNIFICANT_DIGITS - 1 - magnitude))


# In the order of the summary.
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
    Metric("gpu_util_mean", "%"),
    Metric("gpu_memory_peak_mib", "MiB", digits=0),
    Metric("gpu_power_mean_watts", "W"),
    Metric("energy_wh_per_audio_hour", "Wh per audio hour", heading="Wh per audio hour"),
    Metric("usd_per_audio_hour", "USD per audio hour", heading="¢ per audio hour", digits=5),
    Metric("engine_load_seconds", "s"),
    Metric("warmup_seconds", "s"),
)
