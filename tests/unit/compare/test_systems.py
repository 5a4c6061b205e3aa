"""Runs that are repeats of each other are one system."""

from __future__ import annotations

import dataclasses

import pytest

from tests.support.stores import run_of
from whisperbench.compare.groups import Grouping
from whisperbench.compare.rank import rank
from whisperbench.compare.systems import systems
from whisperbench.compare.verdicts import Verdicts
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.results.keys import differing, fields_of
from whisperbench.results.record import RunIdentity

A10 = "NVIDIA A10"
LARGE = BenchmarkConfig(model="large-v3")


class TestRepeats:
    def test_runs_of_one_configuration_are_one_row(self) -> None:
        """The row has the values of all repeats and the geometric mean of the runs."""
        runs = [run_of(LARGE, rate=rate, day=i) for i, rate in enumerate((40.0, 44.0, 41.0))]
        (row,) = rank(Grouping.of(runs, "wer").groups[0], "wer", Verdicts()).rows
        assert row.system.by_run("reqs_per_sec") == [(41.0,), (44.0,), (40.0,)]
        assert row.system.median("reqs_per_sec") == pytest.approx((40 * 44 * 41) ** (1 / 3))
        assert row.system.newest.metric("reqs_per_sec") == 41.0

    @pytest.mark.parametrize("metric", ["reqs_per_sec", "rtfx", "energy_wh_per_audio_hour", "usd_per_audio_hour"])
    def test_repeats_count_for_every_rate_and_cost(self, metric: str) -> None:
        """A run with three repeats has one start: its median counts once, beside that of another run."""
        inner = dataclasses.replace(run_of(LARGE, metrics={metric: 41.0}), history={metric: (40.0, 41.0, 45.0)})
        (found,) = systems([inner, run_of(LARGE, metrics={metric: 39.0})])
        assert found.median(metric) == pytest.approx((41 * 39) ** 0.5)

    @pytest.mark.parametrize("params", [{"model_revision_resolved": "beef"}, {"engine_version": "0.33.0"}])
    def test_another_revision_or_engine_is_another_configuration(self, params: dict[str, str]) -> None:
        """Runs that compute differently are not repeats of each other."""
        assert len(systems([run_of(LARGE), run_of(LARGE, params=params)])) == 2

    def test_cuda_mps_is_another_configuration(self) -> None:
        """MPS changes the throughput of engines that share a GPU by 10 % or more; the label of the row has it."""
        served = run_of(LARGE, params={"cuda_mps": "true"})
        found = systems([run_of(LARGE), served, run_of(LARGE)])
        assert sorted((len(each.runs), each.description) for each in found) == [
            (1, "CUDA MPS"),
            (2, "default settings"),
        ]
        without, with_it = (RunIdentity.of(run.params, run.tags) for run in (run_of(LARGE), served))
        assert with_it != without
        assert with_it.asked_for == without, "a sweep that wants it has it: it cannot ask for MPS"

    def test_another_gpu_is_another_configuration(self) -> None:
        """The GPU is part of the identity."""
        assert len(systems([run_of(LARGE), run_of(LARGE, gpu=A10)])) == 2

    @pytest.mark.parametrize(
        ("wers", "typical"), [([3.0, 1.0, 2.0], 2.0), ([1.0, 2.0], 1.0), ([None, 2.0], 2.0), ([None, None], None)]
    )
    def test_the_typical_run_has_the_median_wer(self, wers: list[float | None], typical: float | None) -> None:
        """Of two runs it is the one with the lower WER; runs without a WER are ignored."""
        (found,) = systems([run_of(LARGE, wer=wer, day=day) for day, wer in enumerate(wers)])
        assert found.wer == typical

    def test_options_without_effect_on_results_are_ignored(self) -> None:
        """Repeats may have different prices and results directories."""
        priced = BenchmarkConfig(model="large-v3", gpu_hourly_usd=2.5, results_dir="elsewhere")
        assert len(systems([run_of(LARGE), run_of(priced)])) == 1


class TestLabels:
    def test_a_label_is_the_model_and_what_differs_from_the_defaults(self) -> None:
        """Labels are those of run names, without options that all rows of a leaderboard share."""
        for options, label in (
            ({}, "large-v3"),
            ({"limit": 8, "load_format": "dummy"}, "large-v3"),
            ({"engine": "faster-whisper", "batch_size": 16}, "large-v3 faster-whisper batch16"),
            (
                {"padding_stride": 16, "engines_per_gpu": 3, "enforce_eager": True},
                "large-v3 stride16 eager 3-engines-per-gpu",
            ),
        ):
            (found,) = systems([run_of(BenchmarkConfig(model="large-v3", **options))])
            assert found.label == label

    def test_other_settings_are_options_without_a_column(self) -> None:
        """Otherwise a difference between two rows would be hidden."""
        options = {"padding_stride": 16, "enforce_eager": True, "quantization": "fp8", "limit": 8, "results_dir": "x"}
        (found,) = systems([run_of(BenchmarkConfig(model="large-v3", **options))])
        assert found.other_settings == "quantization=fp8, enforce_eager=true"


def test_differing_fields_of_keys() -> None:
    """Fields are compared one by one, also if a key lacks one."""
    assert differing(fields_of("a=1|b=x=y"), fields_of("a=2|b=x=y|c=3")) == {"a": ("1", "2"), "c": ("not set", "3")}


def test_zero_is_a_value() -> None:
    """Of a metric that is no rate, zero is shown, because it is the best value."""
    (system,) = systems([run_of(LARGE, metrics={"invented_words_per_minute": 0.0})])
    assert system.median("invented_words_per_minute") == 0.0
