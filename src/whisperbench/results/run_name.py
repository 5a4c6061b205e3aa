"""Short names of what was measured, for the names and tags of runs: the exact ones are params."""

from __future__ import annotations

import re
from pathlib import Path

from whisperbench.config.benchmark import PEERS, BenchmarkConfig
from whisperbench.engines.hardware import Hardware

NOT_IN_A_LABEL = re.compile(r"\b(NVIDIA|GeForce|Tesla|HBM\w*|SXM\w*)\b")


def model_label(config: BenchmarkConfig) -> str:
    """`large-v3`: the model, or the last part of its id or path."""
    return Path(config.model).name or config.model


def data_label(config: BenchmarkConfig) -> str:
    """`test-clean`, `demo`, `my-corpus`, and `test-clean-first8` where only a part is transcribed."""
    data = config.split if config.corpus == "librispeech" else Path(config.corpus).name or config.corpus
    return f"{data}-first{config.limit}" if config.limit else data


def gpu_label(hardware: Hardware) -> str:
    """`H100 80GB`, `2x A100 40GB`, `CPU`: what tells GPUs apart, and nothing that they share."""
    if not hardware.has_gpu:
        return "CPU"
    kept = " ".join(re.sub(r"[ -]+", " ", NOT_IN_A_LABEL.sub("", hardware.gpu_name)).split())
    return f"{hardware.gpu_count}x {kept}" if hardware.gpu_count > 1 else kept


def setting_name(config: BenchmarkConfig) -> str:
    """`large-v3-fp8-256`: model, attention cache, sequences at once, and what thins the padding or shares a GPU
    (`…-stride16-2-engines-a-gpu`, `…-vllm-stock`); or `large-v3-transformers-64`: a peer, and the size of its batches
    where it was given."""
    model = model_label(config)
    shared = "" if config.engines_per_gpu == 1 else f"-{config.engines_per_gpu or 'auto'}-engines-a-gpu"
    if config.engine in PEERS:
        return f"{model}-{config.engine}{f'-{config.batch_size}' if config.batch_size else ''}{shared}"
    stock = "-vllm-stock" if config.stock else ""
    stride = f"-stride{config.padding_stride}" if config.padding_stride > 1 else ""
    return f"{model}-{config.kv_cache_dtype}-{config.max_num_seqs}{stock}{stride}{shared}"


def run_name(config: BenchmarkConfig, hardware: Hardware, setting: str | None = None) -> str:
    """`large-v3-fp8-256_test-clean_H100-80GB`: setting, data and GPU, without a character that a shell reads.

    `setting` is how a sweep tells its configurations apart; random weights are marked.
    """
    place = gpu_label(hardware)
    if config.gpus > 1 and not hardware.has_gpu:
        place = f"{place} {config.gpus} engines"  # of GPUs the label counts those that there are
    parts = [setting or setting_name(config), data_label(config), place]
    return "_".join(
        re.sub(r"[^\w.,=-]+", "-", part) for part in (*parts, *(["random"] if config.random_weights else []))
    )
