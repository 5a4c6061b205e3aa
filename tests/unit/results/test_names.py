"""Every metric of a run is declared, and the summary follows the declarations."""

from __future__ import annotations

import re

from tests.unit.results.test_run_data import contents_of_two, results, timed
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.measure.score import score
from whisperbench.results.names import METRICS
from whisperbench.results.run_data import accuracy_metrics, unscored_metrics


def test_every_metric_of_a_run_is_named() -> None:
    """No more and no less, once each."""
    names = [metric.name for metric in METRICS]
    characters = score(results("") + results("他们"), "zh")
    found = contents_of_two(gpu_hourly_usd=3.6, padding_stride=16).metrics | accuracy_metrics(characters)
    found |= accuracy_metrics(score(results(""), "en"))
    for language in ("en", "zh"):
        found |= unscored_metrics(BenchmarkConfig(language=language), timed(4.0))
    assert set(names) == found.keys()
    assert len(set(names)) == len(names)


def test_the_summary_has_the_metrics_in_their_order_with_their_units() -> None:
    """One row each, for those that it shows."""
    found = contents_of_two(gpu_hourly_usd=3.6, padding_stride=16)
    shown = [metric for metric in METRICS if metric.in_summary and metric.name in found.metrics]
    rows = re.findall(r"^\| (\w+) \| [\d,.]+ (.*?) ?(?:\(.*\) )?\|$", found.description, re.M)
    assert len(rows) > 20
    assert rows == [(metric.name, metric.unit) for metric in shown]
