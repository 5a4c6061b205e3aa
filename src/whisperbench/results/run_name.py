"""Names of runs, and the short names of model, data and GPU that they consist of."""

from __future__ import annotations

import re
from pathlib import Path

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.config.option import labels
from whisperbench.engines.hardware import Hardware

OMITTED_FROM_LABEL = re.compile(r"\b(NVIDIA|GeForce|Tesla|HBM\w*|SXM\w*)\b")


def data_label(config: BenchmarkConfig) -> str:
    """Split or name of the corpus and the labels of the data options, like `demo` and `test-clean-first8`."""
    data = config.split if config.corpus == "librispeech" else Path(config.corpus).name or config.corpus
    return "-".join([data, *_labels(config, of_data=True)])


def gpu_label(hardware: Hardware) -> str:
    """Number and model of the GPUs without vendor and form factor, like `H100 80GB`, `2x A100 40GB` and `CPU`."""
    if not hardware.has_gpu:
        return "CPU"
    kept = short_gpu(hardware.gpu_name)
    return f"{hardware.gpu_count}x {kept}" if hardware.gpu_count > 1 else kept


def short_gpu(name: str) -> str:
    """`A100 80GB` for `NVIDIA A100-SXM4-80GB`: the name of a GPU without vendor and form factor."""
    return " ".join(re.sub(r"[ -]+", " ", OMITTED_FROM_LABEL.sub("", name)).split())


def setting_name(config: BenchmarkConfig) -> str:
    """The labels of non-default options and the last part of the model's id or path: `fp8-seqs256-stride16_large-v3`.

    What differs between the runs of a model comes first, because lists of runs cut the ends of names.
    """
    model = Path(config.model).name or config.model
    return "_".join(filter(None, ["-".join(_labels(config, of_data=False)), model]))


def run_name(config: BenchmarkConfig, hardware: Hardware, setting: str | None = None) -> str:
    """Setting, GPU and data without special characters of a shell, like `fp8-seqs256_large-v3_H100-80GB_test-clean`.

    `setting` replaces the derived name of the setting; a sweep passes the name of the configuration.
    """
    device = gpu_label(hardware)
    if (config.gpus or 1) > 1 and not hardware.has_gpu:
        device = f"{device} {config.gpus} engines"  # the label counts only GPUs
    parts = [setting or setting_name(config), device, data_label(config)]
    return "_".join(re.sub(r"[^\w.,=-]+", "-", part) for part in parts)


def _labels(config: BenchmarkConfig, *, of_data: bool) -> list[str]:
    options = {name: each for name, each in config.declared().items() if (each.group == "Data") is of_data}
    return list(labels(options, config.as_params()).values())
