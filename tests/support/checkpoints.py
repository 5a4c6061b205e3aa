"""Small checkpoints in the Hugging Face layout, and what the tests of them ask for."""

from __future__ import annotations

import functools
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
