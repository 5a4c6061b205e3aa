"""Published results, and the measured systems that are most like them."""

from __future__ import annotations

import pytest

from tests.support.stores import run_of
from whisperbench.compare.published import counterparts, published_results
from whisperbench.compare.systems import System, systems
from whisperbench.options.benchmark import BenchmarkConfig

LARGE = BenchmarkConfig(model="large-v3")
FP8 = BenchmarkConfig(model="large-v3", kv_cache_dtype="fp8")


class TestPublished:
    def test_the_package_has_all_thirteen(self) -> None:
        """6 of the A10, 6 of the H100, 1 of the GB200."""
        found = published_results()
        assert [sum(p.gpu == gpu for p in found) for gpu in ("A10", "H100", "GB200")] == [6, 6, 1]
        assert max(found, key=lambda p: p.reqs_per_sec).reqs_per_sec == 50.23

    def test_a_row_stands_beside_the_run_with_its_settings(self) -> None:
        """The ratio is measured over published throughput."""
        found = counterparts(systems([run_of(LARGE, rate=70.6), run_of(FP8, rate=100.0)]))
        row = next(
            each for each in found if each.published.label == "large-v3 auto/128" and each.published.gpu == "H100"
        )
        assert row.ratio == pytest.approx(2.0)
        assert row.caveats == ()

    @pytest.mark.parametrize("other", [{"engine": "transformers"}, {"padding_stride": 16}, {"engines_per_gpu": 2}])
    def test_what_was_not_published_is_no_published_setting(self, other: dict[str, object]) -> None:
        """A peer's run, thinned padding, engines that share a GPU: other settings, whatever vLLM's options say."""
        run = run_of(BenchmarkConfig(model="large-v3", **other), rate=90.0)
        row = next(each for each in counterparts(systems([run])) if each.system)
        assert row.caveats == ("other settings",)

    def test_real_weights_come_before_random_ones(self) -> None:
        """However fast random weights are."""
        dummy = BenchmarkConfig(model="large-v3", load_format="dummy")
        random = run_of(dummy, wer=None, rate=90.0, tags={"whisperbench.random_weights": "true"})
        row = next(each for each in counterparts(systems([random, run_of(LARGE, rate=70.0)])) if each.system)
        assert row.measured_reqs_per_sec == 70.0

    def test_only_what_concerns_the_measured_ones(self) -> None:
        """Rows of a GPU or a model that was measured; none for other hardware and models, unless asked for."""
        turbo = systems([run_of(BenchmarkConfig(model="large-v3-turbo"), gpu="NVIDIA L4")])
        assert {each.published.model for each in counterparts(turbo)} == {"large-v3-turbo"}
        demo = systems([run_of(BenchmarkConfig(model="demo"), gpu="Intel(R) Xeon(R) Processor")])
        assert counterparts(demo) == ()
        assert len(counterparts(demo, every=True)) == 13

    def test_what_is_not_alike_is_said(self) -> None:
        """Other settings, fewer utterances and random weights are named beside the ratio."""
        config = BenchmarkConfig(model="large-v3", max_num_seqs=384, load_format="dummy")
        run = run_of(config, wer=None, metrics={"utterances": 60.0}, tags={"whisperbench.random_weights": "true"})
        row = next(each for each in counterparts(systems([run])) if each.system)
        assert row.caveats == ("other settings", "random weights", "other data: 60 utterances")

    @pytest.mark.parametrize(
        ("gpu", "model", "fits"),
        [
            ("NVIDIA A10", "large-v3", True),
            ("NVIDIA A100 80GB PCIe", "large-v3", False),
            ("NVIDIA A10G", "large-v3", False),
            ("NVIDIA A10", "distil-large-v3", False),
            ("NVIDIA A10", "large-v3-turbo", False),
        ],
    )
    def test_families_and_models_are_told_apart(self, gpu: str, model: str, fits: bool) -> None:
        """A10 is not A100; large-v3 is neither turbo nor distilled."""
        run = System((run_of(BenchmarkConfig(model=model), gpu=gpu),))
        assert published_results()[0].has_gpu_and_model_of(run) is fits
