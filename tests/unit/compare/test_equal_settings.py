"""One table of GPUs and engines with equal settings."""

from __future__ import annotations

from tests.support.stores import H100, run_of
from tests.unit.compare.test_rank import board_of
from whisperbench.compare.report import gpu_and_engine_comparison
from whisperbench.config.benchmark import BenchmarkConfig

LARGE = BenchmarkConfig(model="large-v3")
A10 = "NVIDIA A10"


class TestGpuAndEngineComparison:
    def test_engines_on_a_gpu(self) -> None:
        """The fastest first, each with its share of that; an engine without KV cache options is beside the fastest
        setting of vLLM, another setting of vLLM is not."""
        other = BenchmarkConfig(model="large-v3", engine="transformers")
        board = board_of(
            run_of(rate=80.0),
            run_of(BenchmarkConfig(model="large-v3", max_num_seqs=256), rate=100.0),
            run_of(BenchmarkConfig(model="large-v3", max_num_seqs=256, engine="vllm-stock"), rate=40.0),
            run_of(other, rate=20.0, params={"engine_version": "5.19.0", "batch_size_effective": "64"}),
        )
        assert [list(row[1:7]) for row in gpu_and_engine_comparison([board]).rows] == [
            [H100, "vllm 0.32.0", "seqs256", "2.50", "100.00", "100 %"],
            [H100, "vllm-stock 0.32.0", "seqs256", "2.50", "40.00", "40 %"],
            [H100, "transformers 5.19.0", "batch64", "2.50", "20.00", "20 %"],
        ]

    def test_one_setting_on_several_gpus(self) -> None:
        """A setting that was measured on only one GPU is not in the table."""
        fast = BenchmarkConfig(model="large-v3", padding_stride=16)
        board = board_of(run_of(rate=80.0), run_of(rate=20.0, gpu=A10), run_of(fast, rate=200.0))
        rows = gpu_and_engine_comparison([board]).rows
        assert [(row[1], row[6]) for row in rows] == [(H100, "100 %"), (A10, "25 %")]
        assert {row[3] for row in rows} == {"default settings"}
        assert not gpu_and_engine_comparison([board_of(run_of(rate=80.0), run_of(fast))]).rows

    def test_random_weights_are_compared_among_themselves(self) -> None:
        """They have no WER, and rates of different models are not compared."""
        tags = {"whisperbench.random_weights": "true"}
        dummy = [
            BenchmarkConfig(model="large-v3", load_format="dummy", engine=engine)
            for engine in ("vllm", "openai-whisper")
        ]
        board = board_of(*(run_of(config, wer=None, rate=9.0, tags=tags) for config in dummy))
        assert [row[4] for row in gpu_and_engine_comparison([board]).rows] == ["–", "–"]
        models = board_of(run_of(LARGE), run_of(BenchmarkConfig(model="base"), gpu=A10))
        assert not gpu_and_engine_comparison([models]).rows
