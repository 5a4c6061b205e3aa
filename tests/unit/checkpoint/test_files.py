"""Weights are whole safetensors files in their directory, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.checkpoints import checkpoint_directory, local
from whisperbench.errors import ModelError


def test_an_incomplete_download_is_refused(tmp_path: Path) -> None:
    """The header of the weights states more bytes than the file has."""
    directory = checkpoint_directory(tmp_path / "model")
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ModelError, match="is incomplete, download or copy it again"):
        local(directory, tmp_path)


def test_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    """A pickle may run code, so that it is named and refused."""
    directory = checkpoint_directory(tmp_path / "model")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is a pickle.*safetensors"):
        local(directory, tmp_path)


def test_shards_are_all_needed_and_stay_in_their_directory(tmp_path: Path) -> None:
    """An index that names a file elsewhere is refused before anything is read."""
    directory = checkpoint_directory(tmp_path / "model")
    (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
    index = directory / "model.safetensors.index.json"
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index.write_text(json.dumps({"weight_map": {"a": names[0], "b": names[1]}}))
    with pytest.raises(ModelError, match=r"lacks 1 of 2 weight files: model-00002-of-00002\.safetensors"):
        local(directory, tmp_path)
    (directory / names[1]).write_bytes((directory / names[0]).read_bytes())
    assert local(directory, tmp_path).model_id == str(directory)
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(ModelError, match="outside its directory"):
        local(directory, tmp_path)
