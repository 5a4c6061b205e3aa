"""Runs that are repeats of each other are one system."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.support.reports import A10, LARGE, board_of
from tests.support.stores import run_of
from whisperbench.compare.systems import other_settings, systems
from whisperbench.config.benchmark import OPTIONS, BenchmarkConfig
from whisperbench.results.keys import differing, fields_of
from whisperbench.results.record import RunIdentity, RunRecord


class TestRepeats:
    def test_runs_of_one_configuration_are_one_row(self) -> None:
        """The row has the values of all repeats and the geometric mean of the runs."""
        runs = [run_of(LARGE, rate=rate, day=i) for i, rate in enumerate((40.0, 44.0, 41.0))]
        (row,) = board_of(*runs).rows
        assert row.system.by_run("reqs_per_sec") == [(41.0,), (44.0,), (40.0,)]
        assert row.system.median("reqs_per_sec") == pytest.approx((40 * 44 * 41) ** (1 / 3))
        assert row.system.newest.metric("reqs_per_sec") == 41.0

    @pytest.mark.parametrize("metric", ["reqs_per_sec", "usd_per_audio_hour"])
    def test_repeats_count_for_every_rate_and_cost(self, metric: str) -> None:
        """A run with three repeats has one start: its median counts once, beside that of another run."""
        inner = dataclasses.replace(run_of(LARGE, metrics={metric: 41.0}), history={metric: (40.0, 41.0, 45.0)})
        (found,) = systems([inner, run_of(LARGE, metrics={metric: 39.0})])
        assert found.median(metric) == pytest.approx((41 * 39) ** 0.5)

    @pytest.mark.parametrize(
        "other",
        [
            run_of(LARGE, params={"model_revision_resolved": "beef"}),
            run_of(LARGE, params={"engine_version": "0.33.0"}),
            run_of(LARGE, params={"cuda_mps": "true"}),
            run_of(LARGE, gpu=A10),
        ],
    )
    def test_runs_that_compute_differently_are_not_repeats(self, other: RunRecord) -> None:
        """Another revision, engine or GPU; MPS changes the throughput of engines that share a GPU by 10 % or more."""
        priced = BenchmarkConfig(model="large-v3", gpu_hourly_usd=2.5, results_dir="elsewhere")
        assert sorted(len(each.runs) for each in systems([run_of(LARGE), other, run_of(priced)])) == [1, 2]

    def test_a_sweep_does_not_ask_for_mps(self) -> None:
        """A run with it has another label, and answers what a sweep asks for."""
        run = run_of(LARGE, params={"cuda_mps": "true"})
        assert systems([run])[0].description == "CUDA MPS"
        without, with_it = (RunIdentity.of(each.params, each.tags) for each in (run_of(LARGE), run))
        assert with_it != without
        assert with_it.asked_for == without

    @pytest.mark.parametrize(
        ("wers", "typical"), [([3.0, 1.0, 2.0], 2.0), ([1.0, 2.0], 1.0), ([None, 2.0], 2.0), ([None, None], None)]
    )
    def test_the_typical_run_has_the_median_wer(self, wers: list[float | None], typical: float | None) -> None:
        """Of two runs it is the one with the lower WER; runs without a WER are ignored."""
        (found,) = systems([run_of(LARGE, wer=wer, day=day) for day, wer in enumerate(wers)])
        assert found.wer == typical

    def test_zero_is_a_value(self) -> None:
        """Of a metric that is no rate, zero is shown, because it is the best value."""
        (found,) = systems([run_of(LARGE, metrics={"invented_words_per_minute": 0.0})])
        assert found.median("invented_words_per_minute") == 0.0


class TestLabels:
    @pytest.mark.parametrize(
        ("options", "label"),
        [
            ({}, "large-v3"),
            ({"limit": 8, "load_format": "dummy"}, "large-v3"),
            ({"engine": "faster-whisper", "batch_size": 16}, "large-v3 faster-whisper batch16"),
            ({"padding_stride": 16, "engines_per_gpu": 3}, "large-v3 stride16 3-engines-per-gpu"),
        ],
    )
    def test_a_label_is_the_model_and_what_differs_from_the_defaults(self, options: Any, label: str) -> None:
        """Labels are those of run names, without options that all rows of a leaderboard share."""
        (found,) = systems([run_of(BenchmarkConfig(model="large-v3", **options))])
        assert found.label == label

    def test_other_settings_are_options_without_a_column(self) -> None:
        """Otherwise a difference between two rows would be hidden."""
        options: Any = {"padding_stride": 16, "enforce_eager": True, "quantization": "fp8", "limit": 8}
        run = run_of(BenchmarkConfig(model="large-v3", **options))
        assert other_settings(OPTIONS, run.options) == "quantization=fp8, enforce_eager=true"

    def test_loops_are_shown_with_their_limit(self) -> None:
        """Counted in the typical run; an empty text if they were not counted."""
        counted = run_of(metrics={"repetition_loops": 0.0, "utterances": 1_313.0})
        assert systems([counted])[0].loops == "0 of 1,313 (at most 0.23 % of clips)"
        assert systems([run_of()])[0].loops == ""


def test_differing_fields_of_keys() -> None:
    """Fields are compared one by one, also if a key lacks one."""
    assert differing(fields_of("a=1|b=x=y"), fields_of("a=2|b=x=y|c=3")) == {"a": ("1", "2"), "c": ("not set", "3")}
