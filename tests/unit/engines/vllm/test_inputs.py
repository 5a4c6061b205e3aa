"""Rendered inputs of vLLM: a layout that this project does not know is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.checkpoints import random_weights
from tests.support.fakes import one_gpu
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.engines.settings import engine_settings
from whisperbench.engines.vllm.inputs import WindowRenderer
from whisperbench.errors import EngineError


def test_a_vllm_that_renders_otherwise_is_refused(tmp_path: Path) -> None:
    """The message names the supported version."""
    rendered = {"type": "enc_dec", "encoder_prompt": {"type": "token"}, "decoder_prompt": {"something": "else"}}
    renderer = SimpleNamespace(render_cmpl=lambda _prompts: [rendered])
    llm = SimpleNamespace(
        llm_engine=SimpleNamespace(renderer=renderer, model_config=SimpleNamespace(is_encoder_decoder=True))
    )
    settings = engine_settings(BenchmarkConfig(), random_weights("tiny.en", tmp_path), one_gpu("NVIDIA H100"))
    with pytest.raises(EngineError, match=r"does not support.*0\.32\.0"):
        WindowRenderer(llm, settings)
