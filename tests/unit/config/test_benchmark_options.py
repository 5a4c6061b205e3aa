"""Options: one record, refused with the option, the value and what is allowed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.errors import ConfigError


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("max_num_seqs", 0, "max_num_seqs='0' is not allowed: expected a number of 1 or more"),
        ("kv_cache_dtype", "fp16", "kv_cache_dtype='fp16' is not allowed: expected one of auto, fp8"),
        ("limit", -1, "limit='-1'"),
        ("max_num_batched_tokens", 1499, "1500 or more"),
        ("gpu_memory_utilization", 1.5, "above 0 and at most 1"),
        ("gpu_memory_utilization", 0.0, "above 0 and at most 1"),
        ("dtype", "bf16", "Did you mean bfloat16?"),
        ("long_audio", "cut", "one of split, trim, drop"),
        ("load_format", "random", "one of auto, dummy"),
        ("front_end", "fast", "one of pipelined, stock"),
        ("language", "english", "two- or three-letter"),
        ("repeats", 0, "1 or more"),
        ("workers", -1, "0 or more"),
        ("gpu_hourly_usd", -0.5, "0 or more"),
        ("gpu_hourly_usd", float("inf"), "0 or more"),
        ("seed", 1 << 32, "0 to 4294967295"),
        ("model", "", "non-empty"),
        ("model", "a\nb", "without control characters"),
        ("limit", "8", "expected int"),
    ],
)
def test_a_bad_value_is_refused(option: str, value: object, said: str) -> None:
    """The message names the option, the value and the rule."""
    with pytest.raises(ConfigError) as refused:
        BenchmarkConfig(**{option: value})  # type: ignore[arg-type]
    assert option in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_fp8_cache_needs_bfloat16(dtype: str) -> None:
    """Two options that contradict each other are refused before anything heavy is imported."""
    with pytest.raises(ConfigError, match="needs dtype=bfloat16"):
        BenchmarkConfig(kv_cache_dtype="fp8", dtype=dtype)
    assert BenchmarkConfig(kv_cache_dtype="fp8").dtype == "auto"


def test_params_are_the_command_lines_spelling_and_come_back() -> None:
    """Params are text, booleans lower case, and the record can be read back from them."""
    config = BenchmarkConfig(enforce_eager=True, gpu_memory_utilization=0.8, limit=5)
    assert config.as_params()["enforce_eager"] == "true"
    assert config.as_params()["gpu_memory_utilization"] == "0.8"
    assert BenchmarkConfig.from_params({**config.as_params(), "gpu_name": "ignored"}) == config


def test_the_digest_tells_configurations_apart_and_repeats_together() -> None:
    """Where results go and what a GPU costs does not make another configuration; anything that is measured does."""
    base = BenchmarkConfig()
    same = dataclasses.replace(base, results_dir="elsewhere", repeats=5, gpu_hourly_usd=2.5)
    assert same.digest == base.digest
    assert dataclasses.replace(base, max_num_seqs=256).digest != base.digest
    assert dataclasses.replace(base, front_end="stock").digest != base.digest
    assert dataclasses.replace(base, engine="transformers").digest != base.digest
    assert dataclasses.replace(base, pack_seconds=30).digest != base.digest


def test_stock_vllm_is_one_engine_under_two_names() -> None:
    """`front_end=stock` and `engine=vllm-stock` are repeats of each other."""
    stock = BenchmarkConfig(front_end="stock")
    assert BenchmarkConfig(engine="vllm-stock").digest == stock.digest
    assert BenchmarkConfig(engine="vllm-stock", front_end="stock").digest == stock.digest
    assert stock.stock
    assert not BenchmarkConfig().stock


@pytest.mark.parametrize(
    ("engine", "options", "said"),
    [
        ("transformers", {"front_end": "stock"}, "front_end=stock is vLLM's alone"),
        ("openai-whisper", {"kv_cache_dtype": "fp8"}, "kv_cache_dtype=fp8 is vLLM's alone"),
        ("faster-whisper", {"quantization": "fp8"}, "engine=faster-whisper has no such"),
        ("faster-whisper", {"load_format": "dummy"}, "real weights only"),
        ("openai-whisper", {"batch_size": 2}, "one file at a time"),
        ("vllm", {"batch_size": 16}, "max_num_batched_tokens"),
    ],
)
def test_what_an_engine_does_not_have_is_refused(engine: str, options: dict[str, Any], said: str) -> None:
    """Rather than measured as if it had it."""
    with pytest.raises(ConfigError, match=said):
        BenchmarkConfig(engine=engine, **options)
