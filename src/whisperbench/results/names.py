"""Public names of tags and metrics, and the units of the metrics.

A new metric is declared here and computed in `results.run_data`; the summary and the leaderboard columns are derived
from the declaration.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container
from typing import Literal

MIN_VALUE, MAX_VALUE = 1e-9, 1e15
"""Limits of a metric that is not 0; beyond them are damaged values, and infinity, which MLflow stores as 1.8e308."""
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
DISTURBED = "whisperbench.disturbed"
"""Other programs that used the machine in the timed region; the speed of such a run is not ranked."""
FAILURE = "whisperbench.failure"
DATASET_DIGEST = "dataset.digest"
GIT_DIRTY = "git.dirty"
COMMIT = "mlflow.source.git.commit"
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
        digits: minimum number of digits after the decimal point; small values have more (`decimals`).
        heading: heading of its leaderboard column; None = no column is derived from the declaration.  A metric of
            `speed_metrics` with a heading is also recorded for each repeat.
        rate: whether the column is always shown, and not only where a run has a value.
        timed: whether it depends on the speed, so that it is not read from a disturbed run.
        above_0: whether 0 is impossible; every metric is finite and at least 0.
        better: the better direction, if the metric has one.
    """

    name: str
    unit: str = ""
    in_summary: bool = True
    heading: str | None = None
    digits: int = 2
    rate: bool = False
    timed: bool = False
    above_0: bool = False
    better: Literal["higher", "lower"] | None = None

    def rounded(self, value: float) -> float:
        """The value as it is logged: 2.31, 152.37, 0.0412."""
        return round(value, self.decimals(value))

    def decimals(self, value: float) -> int:
        """Digits after the decimal point of a value: `digits`, or more if SIGNIFICANT_DIGITS need them."""
        if value == round(value, self.digits):
            return self.digits
        return max(self.digits, SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(abs(value))))


# In the order of the summary.
METRICS = (
    Metric("wer", "%", better="lower"),
    Metric("wer_ci_low", "%", in_summary=False),
    Metric("wer_ci_high", "%", in_summary=False),
    Metric("cer", "%", better="lower"),
    Metric("cer_ci_low", "%", in_summary=False),
    Metric("cer_ci_high", "%", in_summary=False),
    Metric("invented_words_per_minute", "words per audio minute", heading="invented words/min"),
    Metric("invented_characters_per_minute", "characters per audio minute", heading="invented characters/min"),
    Metric("words_per_minute", "words per audio minute"),
    Metric("characters_per_minute", "characters per audio minute"),
    Metric("substitutions", in_summary=False, digits=0),
    Metric("deletions", in_summary=False, digits=0),
    Metric("insertions", in_summary=False, digits=0),
    Metric("reference_words", in_summary=False, digits=0),
    Metric("reference_characters", in_summary=False, digits=0),
    Metric("reqs_per_sec", "utterances/s", heading="reqs/sec", rate=True, timed=True, above_0=True, better="higher"),
    Metric(
        "rtfx", "audio s per wall s", heading="RTFx", digits=1, rate=True, timed=True, above_0=True, better="higher"
    ),
    Metric("wall_seconds", "s", timed=True, above_0=True, better="lower"),
    Metric("client_cpu_seconds", "s", in_summary=False),
    Metric("other_cpu_percent", "%", in_summary=False, digits=0),
    Metric("audio_seconds", "s", above_0=True),
    Metric("utterances", digits=0, above_0=True),
    Metric("utterances_over_30s", digits=0),
    Metric("silent_utterances", digits=0),
    Metric("repetition_loops", digits=0, better="lower"),
    Metric("retried_windows", digits=0, better="lower"),
    Metric("output_tokens_per_sec", "tokens/s", timed=True, better="higher"),
    Metric("latency_p50_ms", "ms", digits=0, timed=True, better="lower"),
    Metric("latency_p95_ms", "ms", digits=0, timed=True, better="lower"),
    Metric("scaling_efficiency", "%", heading="scaling %", digits=1, timed=True, better="higher"),
    Metric("gpu_util_mean", "%", timed=True),
    Metric("gpu_memory_peak_mib", "MiB", digits=0, better="lower"),
    Metric("gpu_power_mean_watts", "W", timed=True),
    Metric("energy_wh_per_audio_hour", "Wh per audio hour", heading="Wh per audio hour", timed=True, better="lower"),
    Metric(
        "usd_per_audio_hour", "USD per audio hour", heading="¢ per audio hour", digits=5, timed=True, better="lower"
    ),
    Metric("engine_load_seconds", "s", better="lower"),
    Metric("warmup_seconds", "s", better="lower"),
)
_ABOVE_0 = {metric.name: metric.above_0 for metric in METRICS}


def is_possible(name: str, value: float) -> bool:
    """Whether `name` is a metric with `value` in its range, for values that other programs may have written."""
    return name in _ABOVE_0 and (MIN_VALUE <= value < MAX_VALUE or (value == 0 and not _ABOVE_0[name]))


def error_metric(metrics: Container[str]) -> str:
    """The error rate that a run is ranked by: `wer`, or `cer` where the unit is the character and `wer` is absent."""
    return "cer" if "wer" not in metrics and "cer" in metrics else "wer"
