"""Options of a benchmark run: contradictions, engines, and the digest that repeats share."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from whisperbench.config.benchmark import ENGINES, OPTIONS, BenchmarkConfig
from whisperbench.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kv_cache_dtype": "fp8", "dtype": "float16"}, "kv_cache_dtype=fp8 needs dtype=bfloat16"),
        ({"quantization": "fp8-encoder", "engine": "vllm-stock"}, "applies only to engine=vllm, because it replaces"),
        ({"quantization": "fp8-encoder", "dtype": "float16"}, "quantization=fp8-encoder needs dtype=bfloat16"),
        ({"engine": "faster-whisper", "load_format": "dummy"}, "loads real weights only"),
        (
            {"engine": "transformers", "padding_stride": 16},
            "engine=vllm. Omit padding_stride with engine=transformers, or use engine=vllm.",
        ),
        ({"batch_size": 16}, "batch_size=16 applies only to engine=faster-whisper or transformers."),
    ],
)
def test_a_wrong_configuration_is_refused(options: dict[str, Any], message: str) -> None:
    """Before anything heavy is imported, with the way out."""
    with pytest.raises(ConfigError) as refused:
        BenchmarkConfig(**options)
    assert message in str(refused.value)


def test_the_digest_is_shared_by_repeats_only() -> None:
    """Options that change neither what is computed nor how do not change it; every other option does."""
    base = BenchmarkConfig()
    for name, each in OPTIONS.items():
        if name == "engine" or not each.has("vllm"):
            continue
        candidates: tuple[Any, ...] = (*each.rule.choices, True, 2, 1500, 0.5, "de", "host:1")
        values = (v for v in candidates if type(v) is each.type and v != each.default and each.rule.test(v))
        changed = dataclasses.replace(base, **{name: next(values)})
        assert (changed.digest != base.digest) == each.identity, name
    assert len({BenchmarkConfig(engine=engine).digest for engine in ENGINES}) == len(ENGINES)


def test_a_foreign_option_is_reset_for_an_engine_of_a_sweep() -> None:
    """A configuration of a grid keeps what its engine has."""
    texts = {"engine": "transformers", "max_num_seqs": "256", "batch_size": "16", "limit": "8", "gpu_name": "ignored"}
    config = BenchmarkConfig.for_engine(texts)
    assert (config.max_num_seqs, config.batch_size, config.limit) == (128, 16, 8)


def test_every_option_has_a_word_for_none() -> None:
    """MLflow refuses an empty default and null; no default is 0 or an asterisk in the place of a word."""
    assert not {each.default_text for each in OPTIONS.values()} & {"", "None", "null", "0", "*"}
