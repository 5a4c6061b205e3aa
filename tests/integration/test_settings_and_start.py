"""Engine settings for a hardware, messages of engines that fail, and the fit check of the renderer."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.engines.test_settings_and_start import H100, TURBO, XEON
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.settings import EngineSettings, engine_settings
from whisperbench.engines.vllm import engine as vllm_engine
from whisperbench.engines.vllm.inputs import WindowRenderer
from whisperbench.engines.vllm.stock import VllmStock
from whisperbench.errors import EngineError


def settings(hardware: Hardware, **options: Any) -> EngineSettings:
    return engine_settings(BenchmarkConfig(**options), TURBO, hardware)


def test_a_start_of_vllm_that_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process is stopped before it answers: that is the cause, not what vLLM's client says when it is ended."""

    def start(*_: object) -> None:
        with subprocess.Popen(["sleep", "60"]) as process:
            process.send_signal(signal.SIGSTOP)
            process.wait()
        raise RuntimeError("Engine core initialization failed. See root cause above.")

    monkeypatch.setattr(VllmStock, "_start", start)
    monkeypatch.setattr(vllm_engine, "START_SECONDS", 0.6)
    settings = engine_settings(BenchmarkConfig(), TURBO, XEON)
    with pytest.raises(EngineError, match=r"did not start within 0\.01 minutes .* stall_minutes"):
        VllmStock(settings, XEON, tmp_path / "engine.log")


def test_a_vllm_that_renders_otherwise_is_refused() -> None:
    """The pipeline does not feed an engine whose input it does not know."""
    rendered = {"type": "enc_dec", "encoder_prompt": {"type": "token"}, "decoder_prompt": {"something": "else"}}
    renderer = SimpleNamespace(render_cmpl=lambda _prompts: [rendered])
    llm = SimpleNamespace(
        llm_engine=SimpleNamespace(renderer=renderer, model_config=SimpleNamespace(is_encoder_decoder=True))
    )
    with pytest.raises(EngineError, match=r"does not support.*engine=vllm-stock, or vLLM 0\.32\.0"):
        WindowRenderer(llm, settings(H100))
