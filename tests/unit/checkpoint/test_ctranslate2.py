"""A CTranslate2 checkpoint becomes the Hugging Face checkpoint it was made of, and a broken one a clear error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.checkpoints import published
from tests.support.ctranslate2_models import TIED, Arrays, pack, tiny_whisper
from whisperbench.checkpoint.architecture import Architecture, write_model_config
from whisperbench.checkpoint.ctranslate2 import convert, hugging_face_tensors, read_architecture, read_variables
from whisperbench.checkpoint.tokenizer import special_ids, write_tokenizer
from whisperbench.errors import ModelError


def write_checkpoint(directory: Path, model: bytes) -> Path:
    """A CTranslate2 directory as faster-whisper users have it."""
    directory.mkdir(exist_ok=True)
    (directory / "model.bin").write_bytes(model)
    (directory / "tokenizer.json").write_text(published(51_864).to_str(), encoding="utf-8")
    return directory


def converted(source: Path, target: Path) -> Arrays:
    from safetensors.numpy import load_file

    target.mkdir(exist_ok=True)
    convert(source, target)
    return dict(load_file(target / "model.safetensors"))


@pytest.mark.parametrize(
    ("architecture", "quantization"),
    [(Architecture(128, 2, 1, 80, 51_865), "float16"), (Architecture(64, 1, 3, 128, 51_866), "float32")],
)
def test_what_ctranslate2_made_of_a_checkpoint_is_turned_back_into_it(
    tmp_path: Path, architecture: Architecture, quantization: str
) -> None:
    """transformers -> CTranslate2's own converter -> ours -> every tensor and dimension as it was."""
    from safetensors.numpy import load_file

    original = make_with_ctranslate2(tmp_path, architecture, quantization)
    tensors = converted(tmp_path / "ct2", tmp_path / "hf")
    expected = load_file(original / "model.safetensors")
    expected.pop("proj_out.weight", None)
    assert sorted(tensors) == sorted(expected)
    for name, array in expected.items():
        assert np.array_equal(tensors[name], array.astype(quantization)), name
    theirs, ours = (json.loads((path / "config.json").read_text()) for path in (original, tmp_path / "hf"))
    assert {name for name in ours if name in theirs and ours[name] != theirs[name]} <= {"dtype"}
    assert ours["dtype"] == quantization


def test_an_int8_checkpoint_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """A quantised checkpoint cannot stand for the model in a comparison of accuracy."""
    make_with_ctranslate2(tmp_path, Architecture(64, 1, 1, 80, 51_864), "int8_float16")
    with pytest.raises(ModelError, match=r"is int8.*--quantization float16"):
        converted(tmp_path / "ct2", tmp_path / "hf")


def make_with_ctranslate2(tmp_path: Path, architecture: Architecture, quantization: str) -> Path:
    """A random checkpoint in `tmp_path/original`, and CTranslate2's conversion of it in `tmp_path/ct2`."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    converters = pytest.importorskip("ctranslate2.converters")

    original = tmp_path / "original"
    original.mkdir()
    write_model_config(original, architecture, special_ids(architecture.vocab_size), dtype="float32")
    write_tokenizer(original, published(architecture.vocab_size))
    torch.manual_seed(32)
    model = WhisperForConditionalGeneration(WhisperConfig.from_pretrained(original))
    with torch.no_grad():
        for parameter in model.parameters():  # the initial biases are zero, which would hide a mix-up
            parameter.normal_()
    model.save_pretrained(original)
    converter = converters.TransformersConverter(str(original), copy_files=["tokenizer.json"])
    converter.convert(str(tmp_path / "ct2"), quantization=quantization)
    return original


def test_a_projection_that_is_stored_twice_is_taken_for_tied(tmp_path: Path) -> None:
    """Some converters write the equal matrix again in place of an alias."""
    variables = tiny_whisper()
    variables["decoder/projection/weight"] = variables["decoder/embeddings/weight"].copy()
    assert converted(write_checkpoint(tmp_path / "ct2", pack(variables)), tmp_path / "hf")


def drop(name: str) -> Callable[[Arrays], object]:
    return lambda variables: variables.pop(name)


def put(name: str, value: np.ndarray[Any, Any]) -> Callable[[Arrays], object]:
    return lambda variables: variables.update({name: value})


def half(*shape: int) -> np.ndarray[Any, Any]:
    return np.ones(shape, np.float16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("encoder/layer_norm/beta"), "lacks 1 weights.*encoder/layer_norm/beta"),
        (put("decoder/rotary", half(4)), "does not have: decoder/rotary"),
        (put("encoder/layer_norm/beta", half(65)), r"layer_norm/beta has shape \(65,\), expected \(64,\)"),
        (put("encoder/position_encodings/encodings", half(3000, 64)), r"expected \(1500, 64\)"),
        (put("encoder/conv1/bias", np.ones(64, np.int8)), "is int8.*--quantization float16"),
        (put("decoder/num_heads", np.array(2, np.int16)), "num_heads is 2, expected 1"),
        (put("decoder/layer_0/attention/linear_1/bias", half(128)), "key bias.*attention/linear_1/bias is not zero"),
        (put("decoder/projection/weight", half(51_864, 64)), "differs from the embeddings"),
        (put("decoder/embeddings/weight", half(1000, 64)), "vocabulary of 1000"),
    ],
)
def test_a_checkpoint_that_is_not_whisper_is_refused(
    tmp_path: Path, change: Callable[[Arrays], object], message: str
) -> None:
    """Names, shapes, types and settings are all held against the architecture; nothing is guessed."""
    variables = tiny_whisper()
    change(variables)
    aliases = [] if "decoder/projection/weight" in variables else TIED
    source = write_checkpoint(tmp_path / "ct2", pack(variables, aliases))
    with pytest.raises(ModelError, match=message):
        converted(source, tmp_path / "hf")


def test_a_missing_or_foreign_tokenizer_is_refused(tmp_path: Path) -> None:
    """Without its own tokenizer a checkpoint's ids mean nothing."""
    source = write_checkpoint(tmp_path / "ct2", pack(tiny_whisper(), TIED))
    (source / "tokenizer.json").write_text(published(51_865).to_str(), encoding="utf-8")
    with pytest.raises(ModelError, match="belongs to another checkpoint"):
        converted(source, tmp_path / "hf")
    (source / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"lacks tokenizer\.json"):
        converted(source, tmp_path / "hf")


SMALL: Arrays = {"a/weight": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.array(3, np.int8)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"\6\0", "buffer of 4 bytes"),
        (pack(SMALL, header=(5, "WhisperSpec", 3)), r"are \(5, 'WhisperSpec', 3\), expected"),
        (pack(SMALL) + b"more", "4 bytes follow the end"),
        (pack(SMALL, [("c", "nothing")]), "nothing"),
        (pack({"a": np.zeros(4, np.float32)})[:-8], "buffer is smaller"),
        (
            pack(SMALL).replace(b"\2\2\0\0\0\3\0\0\0", b"\2\xff\xff\xff\xff\xff\xff\xff\xff"),
            "readable CTranslate2 file",
        ),
        (pack(SMALL).replace(b"\2\2\0\0\0\3\0\0\0", b"\2\2\0\0\0\2\0\0\0"), "12 bytes"),
        (pack({"a": np.zeros(4, np.int8)}).replace(b"\4\0\0\0\1\4", b"\4\0\0\0\5\4"), "bfloat16"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    """A file that is cut short, foreign or contradicts itself is named with what is wrong."""
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=message):
        read_variables(path)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "model.bin"


FUZZED = pack(SMALL | {"decoder/embeddings/weight": np.ones((4, 64), np.float32)}, [("c", "a/weight")])


@settings(max_examples=400, deadline=None)
@given(
    cut=st.integers(0, len(FUZZED)),
    flips=st.lists(st.tuples(st.integers(0, len(FUZZED) - 1), st.integers(0, 255)), max_size=6),
)
def test_no_damage_does_more_than_raise_a_model_error(scratch: Path, cut: int, flips: list[tuple[int, int]]) -> None:
    """However a file is cut and its bytes are changed, it is read or refused."""
    data = bytearray(FUZZED)
    for position, value in flips:
        data[position] = value
    scratch.write_bytes(bytes(data[: cut or None]))
    try:
        variables = read_variables(scratch)
        hugging_face_tensors(variables, read_architecture(variables, scratch), scratch)
    except ModelError:
        return
    raise AssertionError("the file is far too small for a Whisper")
