"""Published benchmarks, and the most similar measured systems."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest

from tests.support.reports import FP8, LARGE, TURBO
from tests.support.stores import run_of
from whisperbench.compare.published import Counterpart, counterparts, published_benchmarks
from whisperbench.compare.systems import System, systems
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.results.record import RunRecord

PACKED = BenchmarkConfig(model="large-v3", split="dev", pack_seconds=30)
H200 = "NVIDIA H200"


def beside(*runs: RunRecord, benchmark: str = "vLLM script", gpu: str = "H100") -> Counterpart:
    """The first published row of this benchmark and GPU with a measured counterpart."""
    found = (each for each in counterparts(systems(runs)) if each.system)
    return next(each for each in found if (each.published.benchmark, each.published.gpu) == (benchmark, gpu))


class TestPublished:
    def test_every_row_has_its_source_and_its_caveats(self) -> None:
        """The name, the address, and what was measured; the figures are those of the sources."""
        found = published_benchmarks()
        assert Counter(p.benchmark for p in found) == {"vLLM script": 13, "MLPerf": 5, "Open ASR Leaderboard": 2}
        assert all(p.source and p.url.startswith("https://github.com/") and p.caveats for p in found)
        script = [p for p in found if p.benchmark == "vLLM script"]
        assert Counter(p.gpu for p in script) == {"A10": 6, "H100": 6, "GB200": 1}
        assert max(p.reqs_per_sec or 0 for p in script) == 50.23

    def test_a_row_is_beside_the_run_with_its_settings(self) -> None:
        """The ratio is measured over published throughput."""
        row = beside(run_of(LARGE, rate=70.6), run_of(FP8, rate=100.0))
        assert row.published.setting == "vllm"
        assert row.ratio == pytest.approx(2.0)
        assert row.caveats == ""
        assert row.best is not None
        assert (row.best.description, row.published.ratio_of(row.best)) == ("fp8", pytest.approx(100 / 35.3))

    @pytest.mark.parametrize(
        ("option", "value"),
        [("engine", "transformers"), ("padding_stride", 16), ("engines_per_gpu", 2), ("quantization", "fp8")],
    )
    def test_what_was_not_published_is_another_setting(self, option: str, value: Any) -> None:
        """Another engine, thinned padding, engines that share a GPU, quantised weights."""
        row = beside(run_of(dataclasses.replace(LARGE, **{option: value}), rate=70.6))
        assert (row.caveats, row.ratio, row.published.ratio_of(row.best)) == (
            "other settings",
            None,
            pytest.approx(2.0),
        )

    @pytest.mark.parametrize(
        "config",
        [
            BenchmarkConfig(model="large-v3", dtype="bfloat16", engines_per_gpu=None, results_dir="elsewhere"),
            BenchmarkConfig(model="openai/whisper-large-v3", model_revision="4fdc", engine="vllm-stock"),
        ],
    )
    def test_what_does_not_change_the_setting(self, config: BenchmarkConfig) -> None:
        """The resolved data type, the name of the model, and options without effect on the result."""
        assert beside(run_of(config, params={"model_id": "openai/whisper-large-v3"}, rate=70.6)).ratio

    def test_caveats_are_named(self) -> None:
        """Other settings, random weights, fewer utterances, other data, and several GPUs."""
        config = BenchmarkConfig(model="large-v3", max_num_seqs=384, load_format="dummy")
        random = run_of(config, wer=None, metrics={"utterances": 60.0}, rate=90.0)
        assert beside(random).caveats == "other settings, random weights, 60 utterances"
        assert beside(random, run_of(LARGE)).caveats == "", "fewer caveats come before a faster run"
        other = run_of(BenchmarkConfig(model="large-v3", split="test-other", gpus=2), params={"gpu_count": "2"})
        assert beside(other).caveats == "2 GPUs together, other data: test-other"

    def test_rates_are_compared_per_gpu(self) -> None:
        """8 published H200 are compared with 2 measured ones; only packed windows of 30 s are MLPerf data."""
        run = run_of(PACKED, gpu=H200, rate=2 * 542.869 / 8, params={"gpu_count": "2"})
        row = beside(run, run_of(LARGE, gpu=H200), benchmark="MLPerf", gpu="H200")
        assert row.ratio == pytest.approx(1.0)
        assert "MLPerf" not in {each.published.benchmark for each in counterparts(systems([run_of(LARGE)]))}
        assert {each.published.benchmark for each in counterparts(systems([run]))} == {"MLPerf"}

    def test_no_ratio_across_gpus(self) -> None:
        """A system on another GPU is shown beside the row; RTFx is compared where no reqs/sec was published."""
        elsewhere = beside(run_of(LARGE, gpu=H200))
        assert elsewhere.ratio is None
        leaderboard = {"benchmark": "Open ASR Leaderboard", "gpu": "A100-SXM4-80GB"}
        here = beside(run_of(LARGE, gpu="NVIDIA A100-SXM4-80GB", metrics={"rtfx": 291.02}), **leaderboard)
        assert here.ratio == pytest.approx(2.0)

    def test_only_rows_of_measured_gpus_and_models_are_shown(self) -> None:
        """Rows of other GPUs and models are shown only with published=all."""
        turbo = systems([run_of(TURBO, gpu="NVIDIA L4")])
        assert {each.published.model for each in counterparts(turbo)} == {"large-v3-turbo"}
        demo = systems([run_of(BenchmarkConfig(model="demo"), gpu="Intel(R) Xeon(R) Processor")])
        assert counterparts(demo) == ()
        assert len(counterparts(demo, every=True)) == 20

    @pytest.mark.parametrize(
        ("gpu", "model", "fits"),
        [
            ("NVIDIA A10", "large-v3", (True, True)),
            ("NVIDIA A100 80GB PCIe", "distil-large-v3", (False, False)),
            ("NVIDIA A10G", "large-v3-turbo", (False, False)),
        ],
    )
    def test_families_and_models_are_distinguished(self, gpu: str, model: str, fits: tuple[bool, bool]) -> None:
        """A10 is not A100; large-v3 is neither turbo nor distilled."""
        run = System((run_of(BenchmarkConfig(model=model), gpu=gpu),))
        row = published_benchmarks()[0]
        assert (row.has_gpu_of(run), row.has_model_of(run)) == fits
