"""Small checkpoints in the Hugging Face layout, and what the tests of them ask for."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import numpy as np

from whisperbench.checkpoint.architecture import Architecture, write_model_config
from whisperbench.checkpoint.checkpoint import Checkpoint, resolve_model
from whisperbench.checkpoint.tokenizer import published_tokenizer, special_ids, write_tokenizer

TINY = Architecture(64, 1, 1, 80, 51_865)

published = functools.cache(published_tokenizer)


def random_weights(model: str, tmp_path: Path) -> Checkpoint:
    """What a model option leads to where no weights are wanted."""
    return resolve_model(model, "main", cache_dir=tmp_path / "cache", random_weights=True)


def local(model: Path | str, tmp_path: Path) -> Checkpoint:
    """What a model option leads to where weights are."""
    return resolve_model(str(model), "main", cache_dir=tmp_path / "cache", random_weights=False)


def checkpoint_directory(directory: Path, weights: bytes | None = None) -> Path:
    """A small checkpoint in the Hugging Face layout: everything but meaningful weights."""
    from safetensors.numpy import save

    directory.mkdir(parents=True)
    write_model_config(directory, TINY, special_ids(TINY.vocab_size), dtype="float16")
    write_tokenizer(directory, published(TINY.vocab_size))
    content = save({"model.decoder.layer_norm.bias": np.zeros(8, np.float16)}) if weights is None else weights
    (directory / "model.safetensors").write_bytes(content)
    return directory


def quantised_to_int8(source: Path, target: Path) -> Path:
    """A copy of a checkpoint with the layers' weights in int8, in the layout of compressed-tensors (W8A8)."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = load_file(source / "model.safetensors")
    for name, weight in list(tensors.items()):
        if ".layers." in name and name.endswith(".weight") and weight.dim() == 2:
            scale = weight.float().abs().amax(1, keepdim=True) / 127
            tensors[name] = (weight.float() / scale).round().to(torch.int8)
            tensors[f"{name}_scale"] = scale.to(weight.dtype)
    save_file(tensors, target / "model.safetensors")
    int8 = {"num_bits": 8, "type": "int", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": {**int8, "strategy": "channel", "dynamic": False},
        "input_activations": {**int8, "strategy": "token", "dynamic": True},
    }
    config = json.loads((target / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["proj_out"],
    }
    (target / "config.json").write_text(json.dumps(config))
    return target
