"""Short names of what was measured, for the names and tags of runs: the exact ones are params."""

from __future__ import annotations

import re
from pathlib import Path

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.config.option import labels
from whisperbench.engines.hardware import Hardware

NOT_IN_A_LABEL = re.compile(r"\b(NVIDIA|GeForce|Tesla|HBM\w*|SXM\w*)\b")


def model_label(config: BenchmarkConfig) -> str:
    """`large-v3`: the model, or the last part of its id or path."""
    return Path(config.model).name or config.model


def data_label(config: BenchmarkConfig) -> str:
    """`test-clean`, `demo`, `my-corpus`, and the labels of the data's options: `test-clean-first8`."""
    data = config.split if config.corpus == "librispeech" else Path(config.corpus).name or config.corpus
    return "-".join([data, *_labels(config, of_data=True)])


def gpu_label(hardware: Hardware) -> str:
    """`H100 80GB`, `2x A100 40GB`, `CPU`: what tells GPUs apart, and nothing that they share."""
    if not hardware.has_gpu:
        return "CPU"
    kept = " ".join(re.sub(r"[ -]+", " ", NOT_IN_A_LABEL.sub("", hardware.gpu_name)).split())
    return f"{hardware.gpu_count}x {kept}" if hardware.gpu_count > 1 else kept


def setting_name(config: BenchmarkConfig) -> str:
    """`large-v3-fp8-seqs256-stride16`: the model and the labels of the options that differ from their defaults."""
    return "-".join([model_label(config), *_labels(config, of_data=False)])


def run_name(config: BenchmarkConfig, hardware: Hardware, setting: str | None = None) -> str:
    """`large-v3-fp8-seqs256_test-clean_H100-80GB`: setting, data and GPU, in characters that a shell does not expand.

    `setting` is the name of a configuration of a sweep.
    """
    place = gpu_label(hardware)
    if (config.gpus or 1) > 1 and not hardware.has_gpu:
        place = f"{place} {config.gpus} engines"  # the label counts only GPUs
    parts = [setting or setting_name(config), data_label(config), place]
    return "_".join(re.sub(r"[^\w.,=-]+", "-", part) for part in parts)


def _labels(config: BenchmarkConfig, *, of_data: bool) -> list[str]:
    options = {name: each for name, each in config.declared().items() if (each.group == "Data") is of_data}
    return list(labels(options, config.as_params()).values())
