"""The options of one run, resolved for this checkpoint and this hardware: what the engine is started with."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from whisperbench.checkpoint.architecture import TEXT_POSITIONS, Architecture
from whisperbench.checkpoint.checkpoint import Checkpoint
from whisperbench.config.benchmark import VLLM_ENGINES, BenchmarkConfig
from whisperbench.constants import WINDOW_POSITIONS
from whisperbench.engines.hardware import MIB, Hardware, free_cores
from whisperbench.engines.padding import typical_slots
from whisperbench.errors import ConfigError

GPU_BATCH = {"faster-whisper": 16, "transformers": 64}
"""What the README of faster-whisper and the Open ASR Leaderboard's script for Whisper take on a GPU."""
CPU_BATCH = {"faster-whisper": 8, "transformers": 8}
"""The default of faster-whisper's pipeline, for both."""


ACTIVATION_VALUES = 32
"""Of two bytes, at most at once for each position of an encoder batch, in units of the model's width: queries, keys and
values with padded heads, the MLP's 4 before and behind GELU, the convolutions' input, and what the allocator keeps."""
GIB = 1 << 30
CONTEXT_BYTES = 2 * GIB  # CUDA's context, the libraries' workspaces and the graphs of the decoder
MIN_CACHE_BYTES = GIB
FEW_LAYERS = 6  # of a decoder whose steps cost the engine's loop more than the GPU
CPU_SEQUENCES = 32
"""As many as a CPU's attention cache has room for, at most; others wait.  Two cores are no faster with 128 (0.88
utterances/s, 32: 0.79 and 0.91), and the cache is cleared when the engine starts: 11 s for 4 GiB."""
CPU_CACHE_BYTES = 4 * GIB  # of all engines on a CPU together, at most
CPU_BLOCK, GPU_BLOCK = 128, 16  # positions of the KV cache that vLLM allocates at once


@dataclasses.dataclass(frozen=True, slots=True)
class EngineSettings:
    """The options of a run, and what was resolved for its checkpoint and hardware.

    `ctranslate2` is the directory that the checkpoint was converted from, if it was.  `gpu_memory_utilization` is the
    share of one engine.  `mel_device` is where features are computed: `cpu` (reader threads) or `gpu` (the model).
    `batch_size` is 0 with vLLM.  `engines` counts all engines, of which `engines_per_gpu` share a GPU.
    `kv_cache_memory_bytes` is what `max_num_seqs` sequences need, if that fits: vLLM then skips the profiling of memory
    and CUDA graphs.  None: vLLM measures it.
    """

    config: BenchmarkConfig
    checkpoint: str
    revision: str | None
    ctranslate2: str | None
    mel_bins: int
    prompt_token_ids: tuple[int, ...]
    dtype: str
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    enforce_eager: bool
    mel_device: str
    batch_size: int
    reader_threads: int
    engines: int = 1
    engines_per_gpu: int = 1
    kv_cache_memory_bytes: int | None = None

    @property
    def stall_seconds(self) -> float:
        """Time without progress after which an engine is ended; 0 for no limit."""
        return 60 * (self.config.stall_minutes or 0.0)

    @property
    def windows_per_step(self) -> int:
        """Windows of typical length that the engine encodes in one step."""
        return self.batch_size or self.max_num_batched_tokens // typical_slots(self.config.padding_stride)

    def warm_up_windows(self, hardware: Hardware) -> int:
        """What is transcribed before the clock: a batch, and on a GPU as many windows as vLLM will hold at once.

        An H100 that had encoded one batch only was 6 % slower in its first pass than in its second.
        """
        return self.config.max_num_seqs if hardware.has_gpu and not self.batch_size else self.windows_per_step


def engine_settings(config: BenchmarkConfig, checkpoint: Checkpoint, hardware: Hardware) -> EngineSettings:
    """Resolve what depends on the checkpoint and on this hardware.

    Raises:
        ConfigError: the hardware or the checkpoint cannot do what is asked.
    """
    if config.kv_cache_dtype == "fp8" and not hardware.has_gpu:
        raise ConfigError(
            f"kv_cache_dtype=fp8 needs a GPU, and this run would use {hardware.gpu_name}. Use kv_cache_dtype=auto."
        )
    if config.quantization and not hardware.has_gpu:
        raise ConfigError(f"quantization={config.quantization} needs a GPU. Use quantization=none.")
    batched_tokens = config.max_num_batched_tokens or _batched_tokens(config.max_num_seqs, hardware)
    engines_per_gpu, cache, dtype = config.engines_per_gpu or 1, None, _dtype(config, hardware)
    if not hardware.has_gpu:
        cache = _cache_on_a_cpu(config, checkpoint.architecture, batched_tokens, 4 if dtype == "float32" else 2)
    elif (memory := hardware.memory_mib) is not None and config.engine in VLLM_ENGINES:
        share = functools.partial(_cache_of_each, config, checkpoint.architecture, memory, batched_tokens)
        engines_per_gpu = _engines_per_gpu(config, checkpoint.architecture, share)
        needed, left = _cache_on_a_gpu(config, checkpoint.architecture, batched_tokens, dtype), share(engines_per_gpu)
        if engines_per_gpu > 1 or (needed <= left and config.engine == "vllm"):
            cache = min(needed, left)
    return EngineSettings(
        config=config,
        checkpoint=checkpoint.path,
        revision=checkpoint.revision,
        ctranslate2=checkpoint.ctranslate2,
        mel_bins=checkpoint.mel_bins,
        prompt_token_ids=tuple(checkpoint.prompt_token_ids(config.language)),
        dtype=dtype,
        max_num_batched_tokens=batched_tokens,
        gpu_memory_utilization=config.gpu_memory_utilization / engines_per_gpu,
        enforce_eager=config.enforce_eager or not hardware.has_gpu,
        mel_device=_mel_device(config, hardware),
        batch_size=_batch_size(config, hardware),
        reader_threads=config.reader_threads or free_cores(),
        engines=(hardware.gpu_count or config.gpus or 1) * engines_per_gpu,
        engines_per_gpu=engines_per_gpu,
        kv_cache_memory_bytes=cache,
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


def _mel_device(config: BenchmarkConfig, hardware: Hardware) -> str:
    """`auto`: the GPU with engine=vllm, otherwise the CPU, where the other engines compute features themselves."""
    if config.mel_device != "auto":
        return config.mel_device
    return "gpu" if hardware.has_gpu and config.engine == "vllm" else "cpu"


def _batched_tokens(max_num_seqs: int, hardware: Hardware) -> int:
    """1,500 per encoder window: 32 windows from 40 GiB on, 16 from 20, 8 below or on a CPU; no more than sequences."""
    memory_gib = (hardware.memory_mib or 0) / 1024
    windows = 32 if memory_gib >= 40 else 16 if memory_gib >= 20 else 8
    return WINDOW_POSITIONS * min(windows, max(max_num_seqs, 2))


def _engines_per_gpu(config: BenchmarkConfig, architecture: Architecture, share: Callable[[int], int]) -> int:
    """Those asked for; chosen, with thinned padding, where one's own loop cannot feed the GPU: three for a decoder of
    few layers, two for a deep one, or as many of them as fit.

    Measured on H100s: large-v3-turbo (4 layers) with one engine 261 utterances/s, two 434, three 459; on another host
    two 394, three 447.  large-v3 (32 layers) 176, 229, and three 205.  `share` tells what so many engines leave each
    other for attention caches, in bytes.

    Raises:
        ConfigError: so many do not fit.
    """
    asked = config.engines_per_gpu
    if not asked:
        wanted = 1 if config.padding_stride == 1 else 3 if architecture.decoder_layers <= FEW_LAYERS else 2
        return next(n for n in range(wanted, 0, -1) if n == 1 or share(n) >= MIN_CACHE_BYTES)
    if asked > 1 and (left := share(asked)) < MIN_CACHE_BYTES:
        raise ConfigError(
            f"engines_per_gpu={asked} does not fit on this GPU: an equal share of its memory is "
            f"{(MIN_CACHE_BYTES - left) / GIB:.1f} GiB too small for this model. Use fewer, or a lower "
            "max_num_batched_tokens."
        )
    return asked


def _cache_of_each(
    config: BenchmarkConfig, architecture: Architecture, memory_mib: int, batched_tokens: int, engines: int
) -> int:
    """What an engine's equal share of a GPU leaves for its attention cache, in bytes; none is left below 0.

    vLLM measures that when it starts, which goes wrong where others start or end beside it.
    """
    share = int(memory_mib * MIB * config.gpu_memory_utilization / engines)
    activations = ACTIVATION_VALUES * 2 * architecture.d_model * batched_tokens
    return share - 2 * architecture.parameters - activations - CONTEXT_BYTES


def _cache_on_a_cpu(
    config: BenchmarkConfig, architecture: Architecture, batched_tokens: int, bytes_per_value: int
) -> int:
    """For at most CPU_SEQUENCES sequences, in bytes, and no more than this engine's part of CPU_CACHE_BYTES."""
    least = _cache_bytes(architecture, CPU_BLOCK, bytes_per_value, 0, batched_tokens)
    wanted = _cache_bytes(
        architecture, CPU_BLOCK, bytes_per_value, min(config.max_num_seqs, CPU_SEQUENCES), batched_tokens
    )
    return max(least, min(wanted, CPU_CACHE_BYTES // (config.gpus or 1)))


def _cache_on_a_gpu(config: BenchmarkConfig, architecture: Architecture, batched_tokens: int, dtype: str) -> int:
    """For `max_num_seqs` sequences of 30 s of audio and as many tokens as Whisper writes, in bytes."""
    bytes_per_value = 1 if config.kv_cache_dtype == "fp8" else 4 if dtype == "float32" else 2
    return _cache_bytes(architecture, GPU_BLOCK, bytes_per_value, config.max_num_seqs, batched_tokens)


def _cache_bytes(
    architecture: Architecture, block: int, bytes_per_value: int, sequences: int, batched_tokens: int
) -> int:
    """Keys and values of the self- and cross-attention of so many sequences, in bytes; at least those of the windows
    that one step encodes and one text, which vLLM requires."""
    window, text, step = (-(-n // block) * block for n in (WINDOW_POSITIONS, TEXT_POSITIONS, batched_tokens))
    position = 2 * architecture.decoder_layers * architecture.d_model * bytes_per_value
    return position * max(step + text, sequences * (window + text))


def _batch_size(config: BenchmarkConfig, hardware: Hardware) -> int:
    """`auto`: the fastest for these weights and this hardware; vLLM forms batches itself, openai-whisper has none."""
    if config.engine in VLLM_ENGINES:
        return 0
    if config.engine == "openai-whisper":
        return 1
    return config.batch_size or (GPU_BATCH if hardware.has_gpu else CPU_BATCH)[config.engine]
