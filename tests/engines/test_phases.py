"""What an engine does while it starts, by lines that vLLM 0.26 and 0.32 write on a GPU and on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from whisperbench.engines.phases import phase_in

OFF = "INFO [vllm.py:1703] Enforce eager set, disabling torch.compile, CUDAGraphs, and JIT kernel warmup.\n"
START = "(EngineCore pid=1) INFO [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='/m', kv=99%\n"
MODEL = "(Worker pid=2) INFO [gpu_model_runner.py:5040] Starting to load model /m...\n"
SHARDS = (
    "\rLoading safetensors checkpoint shards:   0% Completed | 0/2\rLoading pt checkpoint shards:  50% Completed | 1/2"
)
COMPILE = "INFO [backends.py:1105] Using cache directory: /c for vLLM's torch.compile\n"
DYNAMO = "INFO [backends.py:1167] Dynamo bytecode transform time: 1.94 s\n"
ON_A_CPU = "(Worker pid=2) INFO [cpu_model_runner.py:87] Warming up model for the compilation...\n"
CACHE = "INFO [kv_cache_utils.py:2327] GPU KV cache size: 13,104 tokens, Maximum concurrency for 448 tokens: 29.25x\n"
GRAPHS = "\rCapturing CUDA graphs (mixed prefill-decode, PIECEWISE):  12%|#   | 6/51"
DECODE = "Capturing decode CUDA graphs (FULL): 100%|##########| 35/35\n"
READY = "INFO [core.py:402] init engine (profile, create kv cache, warmup model) took 11.06 s\n"


@pytest.mark.parametrize(
    ("written", "phase"),
    [
        ("", ""),
        (OFF, ""),
        (START, "starting its processes"),
        (START + MODEL, "loading weights"),
        (START + MODEL + SHARDS, "loading weights, 50 %"),
        (START + MODEL + SHARDS + "\n" + COMPILE, "compiling"),
        (MODEL + COMPILE + DYNAMO, "compiling"),
        (MODEL + ON_A_CPU, "compiling"),
        (MODEL + DYNAMO + CACHE, "sizing the cache"),
        (CACHE + GRAPHS, "capturing CUDA graphs, 12 %"),
        (CACHE + GRAPHS + "\n" + DECODE, "capturing CUDA graphs, 100 %"),
        (CACHE + DECODE + READY + OFF, "almost ready"),
    ],
)
def test_the_last_phase_that_the_log_names(written: str, phase: str, tmp_path: Path) -> None:
    """With its percentage where that is told in the same line."""
    log = tmp_path / "engine.log"
    log.write_text(written, encoding="utf-8")
    assert phase_in(log) == phase


def test_a_log_that_is_not_there_yet(tmp_path: Path) -> None:
    """Nothing is said, and nothing fails."""
    assert phase_in(tmp_path / "engine.log") == ""


def test_a_long_log_is_not_read_from_its_beginning(tmp_path: Path) -> None:
    """Asked twice a second, it costs the same whatever the engine has written."""
    log = tmp_path / "engine.log"
    log.write_bytes(START.encode() + b"x" * 2_000_000 + b"\n" + CACHE.encode())
    assert phase_in(log) == "sizing the cache"
