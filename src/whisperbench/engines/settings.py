"""The options of one run, resolved for this checkpoint and this hardware: what the engine is started with."""

from __future__ import annotations

import dataclasses

from whisperbench.engines.hardware import Hardware
from whisperbench.engines.padding import typical_positions
from whisperbench.errors import ConfigError
from whisperbench.inputs.architecture import WINDOW_POSITIONS
from whisperbench.inputs.checkpoint import Checkpoint
from whisperbench.options import PEERS, BenchmarkConfig

GPU_BATCH = {"faster-whisper": 16, "transformers": 64}
"""What the README of faster-whisper and the Open ASR Leaderboard's script for Whisper take on a GPU."""
CPU_BATCH = {"faster-whisper": 8, "transformers": 8}
"""The default of faster-whisper's pipeline, for both."""


@dataclasses.dataclass(frozen=True, slots=True)
class EngineSettings:
    """What an engine is started with, nothing left to choose; `workers` 0 = one reader per free core.

    `features`: `cpu`, the readers compute them; `gpu`, the model does, on its own device.  `batch_size` is a peer's, 0
    with vLLM.  `ctranslate2` is the directory in that layout that the checkpoint was converted from, where it was.
    `engines` above 1, `engines_per_gpu` of them on a GPU, are a fleet; with `ray_address` it is on that cluster.
    """

    checkpoint: str
    dtype: str
    kv_cache_dtype: str
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    enforce_eager: bool
    load_format: str
    quantization: str | None
    seed: int
    mel_bins: int
    prompt_token_ids: tuple[int, ...]
    front_end: str
    long_audio: str
    workers: int
    engine: str = "vllm"
    batch_size: int = 0
    language: str = "en"
    revision: str | None = None
    ctranslate2: str | None = None
    padding_stride: int = 1
    features: str = "cpu"
    engines: int = 1
    engines_per_gpu: int = 1
    ray_address: str = ""

    @property
    def windows_per_step(self) -> int:
        """Windows of typical length that the engine encodes in one step."""
        return self.batch_size or self.max_num_batched_tokens // typical_positions(self.padding_stride)


def engine_settings(config: BenchmarkConfig, checkpoint: Checkpoint, hardware: Hardware) -> EngineSettings:
    """Resolve `auto` and 0 for this hardware.

    Raises:
        ConfigError: the hardware or the checkpoint cannot do what is asked.
    """
    if config.kv_cache_dtype == "fp8" and not hardware.has_gpu:
        raise ConfigError(
            f"kv_cache_dtype=fp8 needs a GPU, and this run would use {hardware.gpu_name}. Use kv_cache_dtype=auto."
        )
    if config.quantization != "none" and not hardware.has_gpu:
        raise ConfigError(f"quantization={config.quantization} needs a GPU. Use quantization=none.")
    # One engine's client cannot feed a GPU whose encoder skips most of the padding: measured on an H100, 249 of 382/s.
    thinned = hardware.has_gpu and config.padding_stride > 1
    engines_per_gpu = config.engines_per_gpu or (2 if thinned else 1)
    return EngineSettings(
        checkpoint=checkpoint.path,
        dtype=_dtype(config, hardware),
        kv_cache_dtype=config.kv_cache_dtype,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens or _batched_tokens(config.max_num_seqs, hardware),
        gpu_memory_utilization=config.gpu_memory_utilization / engines_per_gpu,
        enforce_eager=config.enforce_eager or not hardware.has_gpu,
        load_format=config.load_format,
        quantization=None if config.quantization == "none" else config.quantization,
        seed=config.seed,
        mel_bins=checkpoint.mel_bins,
        prompt_token_ids=tuple(checkpoint.prompt_token_ids(config.language)),
        front_end="stock" if config.stock else config.front_end,
        long_audio=config.long_audio,
        workers=config.workers,
        engine=config.engine,
        batch_size=_batch_size(config, hardware),
        language=config.language,
        revision=checkpoint.revision,
        ctranslate2=checkpoint.ctranslate2,
        padding_stride=config.padding_stride,
        features=_features(config, hardware),
        engines=(hardware.gpu_count or config.gpus or 1) * engines_per_gpu,
        engines_per_gpu=engines_per_gpu,
        ray_address=config.cluster,
    )


def _dtype(config: BenchmarkConfig, hardware: Hardware) -> str:
    """`auto`: bfloat16 from Ampere on (an fp8 cache needs it on Hopper), float16 before; on a CPU
    bfloat16 where it has instructions for it (float16 is five times slower there), else float32.
    faster-whisper and openai-whisper compute in float16 on a GPU and in float32 on a CPU, as their READMEs do."""
    theirs = "float16" if hardware.has_gpu else "float32"
    if config.engine == "openai-whisper" and config.dtype not in ("auto", "float32", theirs):
        known = "float16 or float32" if hardware.has_gpu else "float32"
        raise ConfigError(
            f"dtype={config.dtype} is not allowed: openai-whisper computes in {known} on {hardware.gpu_name}. "
            "Use dtype=auto."
        )
    if config.dtype != "auto":
        return config.dtype
    if config.engine in ("faster-whisper", "openai-whisper"):
        return theirs
    if hardware.has_gpu:
        return "bfloat16" if (hardware.compute_capability or (0, 0)) >= (8, 0) else "float16"
    return "bfloat16" if hardware.cpu_has_bfloat16 else "float32"


def _features(config: BenchmarkConfig, hardware: Hardware) -> str:
    """`auto`: where the GPU is; vLLM's own front end computes them itself, on the CPU."""
    if config.features != "auto":
        return config.features
    return "gpu" if hardware.has_gpu and config.engine == "vllm" and not config.stock else "cpu"


def _batched_tokens(max_num_seqs: int, hardware: Hardware) -> int:
    """1,500 per encoder window: 32 windows from 40 GiB on, 16 from 20, 8 below or on a CPU; no more than sequences."""
    memory_gib = (hardware.memory_mib or 0) / 1024
    windows = 32 if memory_gib >= 40 else 16 if memory_gib >= 20 else 8
    return WINDOW_POSITIONS * min(windows, max(max_num_seqs, 2))


def _batch_size(config: BenchmarkConfig, hardware: Hardware) -> int:
    """0 stands for what these weights and this hardware run best; vLLM batches by itself, openai-whisper does not."""
    if config.engine not in PEERS:
        return 0
    if config.engine == "openai-whisper":
        return 1
    return config.batch_size or (GPU_BATCH if hardware.has_gpu else CPU_BATCH)[config.engine]
