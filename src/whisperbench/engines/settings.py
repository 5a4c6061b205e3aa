"""Engine settings: the options of one run, resolved for its checkpoint and hardware."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from whisperbench.checkpoint.architecture import TEXT_POSITIONS, Architecture
from whisperbench.checkpoint.checkpoint import Checkpoint
from whisperbench.config.benchmark import FP8_ENCODER, VLLM_ENGINES, BenchmarkConfig
from whisperbench.constants import WINDOW_POSITIONS
from whisperbench.engines.hardware import MIB, Hardware, free_cores
from whisperbench.engines.padding import typical_slots
from whisperbench.errors import ConfigError

BATCH_SIZES = {"faster-whisper": (16, 8), "transformers": (64, 8), "openai-whisper": (1, 1)}
"""Batch sizes on a GPU and on a CPU.

On a GPU they are those of the README of faster-whisper and of the Open ASR Leaderboard's script for Whisper; 8 is the
default of faster-whisper's pipeline.  openai-whisper has no batches.
"""
ACTIVATION_VALUES = 32
"""Upper bound of the 2-byte activations per position of an encoder batch, in multiples of the model's width.

It covers queries, keys and values with padded heads, the MLP's 4 widths before and after GELU, the input of the
convolutions, and memory that the allocator caches.
"""
GIB = 1 << 30
CONTEXT_BYTES = 2 * GIB  # CUDA context, workspaces of the libraries and CUDA graphs of the decoder
MIN_CACHE_BYTES = GIB
FEW_LAYERS = 6  # decoder layers up to which a step costs more CPU time than GPU time
CPU_SEQUENCES = 32
"""Maximum number of sequences in the KV cache on a CPU; further sequences wait.

On two cores 128 sequences are as fast as 32 (0.88 utterances/s against 0.79 and 0.91), but vLLM clears the cache at the
start, which takes 11 s for 4 GiB.
"""
CPU_CACHE_BYTES = 4 * GIB  # maximum of all engines on a CPU together
FP8_CAPABILITY = (9, 0)
CPU_BLOCK, GPU_BLOCK = 128, 16  # positions in one block of vLLM's KV cache


@dataclasses.dataclass(frozen=True, slots=True)
class EngineSettings:
    """The options of a run, and the values that were resolved for its checkpoint and hardware.

    `kv_cache_memory_bytes` is the size that `max_num_seqs` sequences need, if it fits, so that vLLM skips the profiling
    of memory and CUDA graphs.  None: vLLM measures how much fits.
    """

    config: BenchmarkConfig
    checkpoint: str
    revision: str | None
    ctranslate2: str | None  # directory in CTranslate2's format from which the checkpoint was converted
    mel_bins: int
    prompt_token_ids: tuple[int, ...]
    dtype: str
    max_num_batched_tokens: int
    gpu_memory_utilization: float  # of one engine
    enforce_eager: bool
    mel_device: str  # where features are computed: `cpu` (reader threads) or `gpu` (the model)
    batch_size: int  # 0 with vLLM, which forms batches itself
    reader_threads: int
    engines: int = 1  # all of them
    engines_per_gpu: int = 1
    kv_cache_memory_bytes: int | None = None

    @property
    def stride(self) -> int:
        """The distance of the positions that are kept of the padding; 1 keeps all."""
        return self.config.padding_stride

    @property
    def stall_seconds(self) -> float:
        """Time without progress after which an engine is ended; 0: no limit."""
        return 60 * (self.config.stall_minutes or 0.0)

    @property
    def windows_per_step(self) -> int:
        """Windows of typical length that the engine encodes in one step."""
        return self.batch_size or self.max_num_batched_tokens // typical_slots(self.stride)

    def warm_up_windows(self, hardware: Hardware) -> int:
        """Windows of the warm-up: one batch, and with vLLM on a GPU as many as it decodes concurrently.

        After a warm-up of one batch, an H100 was 6 % slower in its first pass than in its second.
        """
        return self.config.max_num_seqs if hardware.has_gpu and not self.batch_size else self.windows_per_step


def engine_settings(config: BenchmarkConfig, checkpoint: Checkpoint, hardware: Hardware) -> EngineSettings:
    """Resolve the options whose values depend on the checkpoint and the hardware.

    Raises:
        ConfigError: the hardware or the checkpoint does not support an option.
    """
    _require_supported(config, checkpoint, hardware)
    dtype, architecture, has_gpu = _dtype(config, hardware), checkpoint.architecture, hardware.has_gpu
    batched_tokens = config.max_num_batched_tokens or _batched_tokens(config.max_num_seqs, hardware)
    bytes_per_value = 1 if config.kv_cache_dtype == "fp8" else 4 if dtype == "float32" else 2
    block = GPU_BLOCK if has_gpu else CPU_BLOCK
    cache_bytes = functools.partial(_cache_bytes, architecture, block, bytes_per_value, batched_tokens)
    engines_per_gpu, cache = config.engines_per_gpu or 1, None
    if not has_gpu:
        wanted = cache_bytes(min(config.max_num_seqs, CPU_SEQUENCES))
        cache = max(cache_bytes(0), min(wanted, CPU_CACHE_BYTES // (config.gpus or 1)))
    elif (memory := hardware.memory_mib) is not None and config.engine in VLLM_ENGINES:
        free_bytes = functools.partial(_free_bytes, config, architecture, memory, batched_tokens)
        engines_per_gpu = _engines_per_gpu(config, architecture, free_bytes)
        needed, free = cache_bytes(config.max_num_seqs), free_bytes(engines_per_gpu)
        if engines_per_gpu > 1 or (needed <= free and config.engine == "vllm"):
            cache = min(needed, free)
    fastest_mel_device = "gpu" if has_gpu and config.engine == "vllm" else "cpu"
    return EngineSettings(
        config=config,
        checkpoint=checkpoint.path,
        revision=checkpoint.revision,
        ctranslate2=checkpoint.ctranslate2,
        mel_bins=checkpoint.architecture.mel_bins,
        prompt_token_ids=tuple(checkpoint.prompt_token_ids(config.language)),
        dtype=dtype,
        max_num_batched_tokens=batched_tokens,
        gpu_memory_utilization=config.gpu_memory_utilization / engines_per_gpu,
        enforce_eager=config.enforce_eager or not has_gpu,
        mel_device=fastest_mel_device if config.mel_device == "auto" else config.mel_device,
        batch_size=config.batch_size or BATCH_SIZES.get(config.engine, (0, 0))[0 if has_gpu else 1],
        reader_threads=config.reader_threads or free_cores(),
        engines=(hardware.gpu_count or config.gpus or 1) * engines_per_gpu,
        engines_per_gpu=engines_per_gpu,
        kv_cache_memory_bytes=cache,
    )


def _require_supported(config: BenchmarkConfig, checkpoint: Checkpoint, hardware: Hardware) -> None:
    if not hardware.has_gpu and config.kv_cache_dtype == "fp8":
        raise ConfigError(
            f"kv_cache_dtype=fp8 needs a GPU, and this run would use {hardware.gpu_name}. Use kv_cache_dtype=auto."
        )
    if not hardware.has_gpu and config.quantization:
        raise ConfigError(f"quantization={config.quantization} needs a GPU. Use quantization=none.")
    if config.quantization == FP8_ENCODER and (hardware.compute_capability or (0, 0)) < FP8_CAPABILITY:
        raise ConfigError(
            f"quantization={FP8_ENCODER} needs a GPU of compute capability 9.0 or higher (H100, H200 and newer), "
            f"because older ones have no FP8 products with a scale per row, and this run would use "
            f"{hardware.gpu_name}. Use quantization=none."
        )
    if checkpoint.quantisation and (config.quantization or config.engine not in VLLM_ENGINES):
        wrong, right = f"engine={config.engine}", "engine=vllm"
        if config.quantization:
            wrong, right = f"quantization={config.quantization}", "quantization=none"
        raise ConfigError(
            f"{wrong} is not possible with {checkpoint.model_id}, whose weights are already quantised "
            f"({checkpoint.quantisation}), which only vLLM loads. Use {right}, or the original checkpoint."
        )


def _dtype(config: BenchmarkConfig, hardware: Hardware) -> str:
    """The data type; `auto` depends on the engine and the hardware.

    With vLLM and transformers, `auto` is bfloat16 on GPUs since Ampere (an fp8 KV cache on Hopper requires it) and on
    CPUs with bfloat16 instructions (float16 is five times slower there), float16 on older GPUs, and float32 on other
    CPUs.  With faster-whisper and openai-whisper it is float16 on a GPU and float32 on a CPU, as in their READMEs.
    """
    readme_dtype = "float16" if hardware.has_gpu else "float32"
    if config.engine == "openai-whisper" and config.dtype not in ("auto", "float32", readme_dtype):
        supported = "float16 or float32" if hardware.has_gpu else "float32"
        raise ConfigError(
            f"dtype={config.dtype} is not allowed: openai-whisper computes in {supported} on {hardware.gpu_name}. "
            "Use dtype=auto."
        )
    if config.dtype != "auto":
        return config.dtype
    if config.engine in ("faster-whisper", "openai-whisper"):
        return readme_dtype
    if hardware.has_gpu:
        return "bfloat16" if (hardware.compute_capability or (0, 0)) >= (8, 0) else "float16"
    return "bfloat16" if hardware.cpu_has_bfloat16 else "float32"


def _batched_tokens(max_num_seqs: int, hardware: Hardware) -> int:
    """Tokens of 32 encoder windows with 40 GiB of GPU memory, 16 with 20 GiB, else 8; at most `max_num_seqs`."""
    memory_gib = (hardware.memory_mib or 0) / 1024
    windows = 32 if memory_gib >= 40 else 16 if memory_gib >= 20 else 8
    return WINDOW_POSITIONS * min(windows, max(max_num_seqs, 2))


def _engines_per_gpu(config: BenchmarkConfig, architecture: Architecture, free_bytes: Callable[[int], int]) -> int:
    """The number of engines that share a GPU; `free_bytes` is the memory for the KV cache of each by their number.

    `auto` is 1 without thinned padding.  With it, the CPU loop of one engine cannot keep the GPU busy, so `auto` is 3
    for a decoder of few layers and 2 for a deeper one, or the largest number below that fits.

    Measured on H100s: large-v3-turbo (4 layers) with one engine 261 utterances/s, two 434, three 459; on another host
    two 394, three 447.  large-v3 (32 layers) 176, 229, and three 205.

    Raises:
        ConfigError: the requested number does not fit.
    """
    most = 1 if config.padding_stride == 1 else 3 if architecture.decoder_layers <= FEW_LAYERS else 2
    fitting = (n for n in range(most, 0, -1) if n == 1 or free_bytes(n) >= MIN_CACHE_BYTES)
    engines = config.engines_per_gpu or next(fitting)
    if engines > 1 and (free := free_bytes(engines)) < MIN_CACHE_BYTES:
        raise ConfigError(
            f"engines_per_gpu={engines} does not fit on this GPU: an equal share of its memory is "
            f"{(MIN_CACHE_BYTES - free) / GIB:.1f} GiB too small for this model. Use fewer engines, or a lower "
            "max_num_batched_tokens."
        )
    return engines


def _free_bytes(
    config: BenchmarkConfig, architecture: Architecture, memory_mib: int, batched_tokens: int, engines: int
) -> int:
    """Bytes that an engine's equal share of a GPU leaves for its KV cache; negative if the model does not fit.

    vLLM's own measurement at its start is wrong if another engine on the same GPU starts or ends meanwhile.
    """
    share = int(memory_mib * MIB * config.gpu_memory_utilization / engines)
    activations = ACTIVATION_VALUES * 2 * architecture.d_model * batched_tokens
    return share - 2 * architecture.parameters - activations - CONTEXT_BYTES


def _cache_bytes(
    architecture: Architecture, block: int, bytes_per_value: int, batched_tokens: int, sequences: int
) -> int:
    """Bytes of the KV cache of self- and cross-attention for `sequences` windows of 30 s with transcripts of maximum
    length, and at least for the windows encoded in one step and one transcript, which vLLM requires."""
    window, transcript, step = (-(-n // block) * block for n in (WINDOW_POSITIONS, TEXT_POSITIONS, batched_tokens))
    position = 2 * architecture.decoder_layers * architecture.d_model * bytes_per_value
    return position * max(step + transcript, sequences * (window + transcript))
