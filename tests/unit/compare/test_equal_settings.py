"""GPUs and engines at equal settings, and beside that each at its best setting."""

from __future__ import annotations

import dataclasses

from tests.support.reports import A10, LARGE, board_of
from tests.support.stores import H100, run_of
from whisperbench.compare.equal_settings import engine_comparison, gpu_comparison
from whisperbench.config.benchmark import BenchmarkConfig

FAST = BenchmarkConfig(model="large-v3", kv_cache_dtype="fp8", padding_stride=16)


class TestGpus:
    def test_one_configuration_on_several_gpus(self) -> None:
        """The best setting of a GPU is in a separate column with its name, so that 8.7 × is not hardware alone."""
        board = board_of(run_of(rate=80.0), run_of(rate=20.0, gpu=A10), run_of(FAST, rate=200.0))
        assert [list(row) for row in gpu_comparison([board]).rows] == [
            ["large-v3", H100, "vllm 0.32.0", "default settings", "80.00", "100 %", "fp8 stride16", "200.00", "100 %"],
            ["large-v3", A10, "vllm 0.32.0", "default settings", "20.00", "25 %", "default settings", "20.00", "10 %"],
        ]

    def test_another_engine_version_is_not_equal(self) -> None:
        """Without a common configuration only the best settings are shown."""
        newer = run_of(rate=80.0, params={"engine_version": "0.33.0"})
        rows = gpu_comparison([board_of(newer, run_of(rate=20.0, gpu=A10))]).rows
        assert [list(row[3:6]) for row in rows] == [["–"] * 3] * 2
        assert [row[8] for row in rows] == ["100 %", "25 %"]

    def test_one_gpu_and_different_models_are_not_compared(self) -> None:
        """There is nothing to compare."""
        assert not gpu_comparison([board_of(run_of(rate=80.0), run_of(FAST))]).rows
        assert not gpu_comparison([board_of(run_of(LARGE), run_of(BenchmarkConfig(model="base"), gpu=A10))]).rows


class TestEngines:
    def test_engines_are_compared_with_equal_settings(self) -> None:
        """vLLM with a quantised cache and thinned padding is not equal to an engine that has neither."""
        other = BenchmarkConfig(model="large-v3", engine="transformers", batch_size=128)
        stock = dataclasses.replace(LARGE, engine="vllm-stock")
        board = board_of(
            run_of(LARGE, rate=80.0),
            run_of(FAST, rate=200.0),
            run_of(stock, rate=40.0),
            run_of(other, rate=20.0, params={"engine_version": "5.19.0", "batch_size": "128"}),
        )
        assert [[row[2], *row[4:]] for row in engine_comparison([board]).rows] == [
            ["vllm 0.32.0", "80.00", "100 %", "fp8 stride16", "200.00", "100 %"],
            ["vllm-stock 0.32.0", "40.00", "50 %", "vllm-stock", "40.00", "20 %"],
            ["transformers 5.19.0", "20.00", "25 %", "transformers batch128", "20.00", "10 %"],
        ]

    def test_another_concurrency_is_not_equal(self) -> None:
        """A batch of 16 beside 128 sequences: only the best of each engine is shown."""
        other = BenchmarkConfig(model="large-v3", engine="transformers", batch_size=16)
        board = board_of(run_of(LARGE), run_of(other, params={"engine_version": "5.19.0", "batch_size": "16"}))
        assert [list(row[3:6]) for row in engine_comparison([board]).rows] == [["–"] * 3] * 2

    def test_random_weights_are_compared_among_themselves(self) -> None:
        """They have no WER."""
        dummy = [dataclasses.replace(LARGE, load_format="dummy", engine=engine) for engine in ("vllm", "vllm-stock")]
        rows = engine_comparison([board_of(*(run_of(c, wer=None, rate=9.0) for c in dummy))]).rows
        assert [row[5] for row in rows] == ["100 %", "100 %"]
