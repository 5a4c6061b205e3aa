"""Conversion of CTranslate2 checkpoints to the Hugging Face layout."""

from __future__ import annotations

import math
import mmap
import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whisperbench.checkpoint.architecture import TEXT_POSITIONS, Architecture, write_model_config
from whisperbench.checkpoint.tokenizer import added_tokens, read_tokenizer, write_tokenizer
from whisperbench.constants import WINDOW_POSITIONS
from whisperbench.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt

    Variables = Mapping[str, npt.NDArray[Any]]

FORMAT = (6, "WhisperSpec", 3)  # file version, specification and its revision, as CTranslate2 4.8 writes them
TYPES = {0: "<f4", 1: "|i1", 2: "<i2", 3: "<i4", 4: "<f2"}
FLOATS = {np.dtype("<f4"): "float32", np.dtype("<f2"): "float16"}

Layout = dict[str, tuple[tuple[int, ...], tuple[str | None, ...]]]
"""For each variable of a `model.bin`, its shape and the names of the Hugging Face tensors stacked along its axis 0.

None stands for a bias that the Hugging Face layout does not have; its values must be zero."""


def convert(source: Path, target: Path) -> None:
    """Write the checkpoint in `source` to the directory `target` in the Hugging Face layout, with identical weights.

    Raises:
        ModelError: a file is missing or damaged, or the model is not a Whisper model in float16 or float32.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = source / "model.bin"
    variables = read_variables(path)
    architecture = read_architecture(variables, path)
    tensors = hugging_face_tensors(variables, architecture, path)
    tokenizer = read_tokenizer(source / "tokenizer.json")
    tokens = added_tokens(tokenizer)
    architecture.check_tokens(tokens, source)
    write_model_config(target, architecture, tokens, dtype=FLOATS[variables["decoder/embeddings/weight"].dtype])
    write_tokenizer(target, tokenizer)
    try:
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:
        raise ModelError(f"{target / 'model.safetensors'} cannot be written: {error}.") from error


def read_variables(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Every variable of a `model.bin` by name, including aliases; the arrays are views of the mapped file.

    Raises:
        ModelError: the file cannot be read, is truncated, or is not a Whisper model of CTranslate2.
    """
    try:
        with path.open("rb") as file:
            return _variables(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (
        OSError,
        ValueError,
        KeyError,
        OverflowError,
        struct.error,
    ) as error:  # ValueError: an empty file, or a wrong size
        raise ModelError(f"{path} is not a readable CTranslate2 file: {str(error)[:300]}.") from error


def _variables(data: mmap.mmap) -> dict[str, npt.NDArray[Any]]:
    def number(kind: str) -> int:
        return int(struct.unpack("<" + kind, data.read(struct.calcsize(kind)))[0])

    def text() -> str:
        return data.read(number("H")).rstrip(b"\0").decode("ascii")

    found = number("I"), text(), number("I")
    if found != FORMAT:
        raise ValueError(
            f"version, specification and revision are {found}, expected {FORMAT}. Convert it again with CTranslate2 4.8"
        )
    variables: dict[str, npt.NDArray[Any]] = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind, size = number("B"), number("I")
        if kind not in TYPES:
            hint = " (bfloat16: convert it again with --quantization float16)" if kind == 5 else ""
            raise ValueError(f"{name} has type {kind}{hint}")
        array = np.frombuffer(data, TYPES[kind], math.prod(shape), data.tell())
        if array.nbytes != size:
            raise ValueError(f"{name} has {size} bytes, which does not match shape {shape} of {array.dtype.name}")
        data.seek(size, os.SEEK_CUR)
        variables[name] = array.reshape(shape)
    for _ in range(number("I")):
        alias, name = text(), text()
        variables[alias] = variables[name]
    if data.tell() != len(data):
        raise ValueError(f"{len(data) - data.tell()} bytes follow the end")
    return variables


def read_architecture(variables: Variables, path: Path) -> Architecture:
    """The dimensions of the model, from the shapes of its tensors.

    Raises:
        ModelError: a tensor is missing or has another rank, or an attribute has an unexpected value.
    """
    for name, rank in (("decoder/embeddings/weight", 2), ("encoder/conv1/weight", 3)):
        if name not in variables or variables[name].ndim != rank:
            raise ModelError(f"{path} lacks {name} with {rank} dimensions, so it is not a Whisper model.")
    vocab_size, d_model = variables["decoder/embeddings/weight"].shape
    layers = {match[0] for name in variables if (match := re.match(r"(en|de)coder/layer_\d+/", name))}
    encoder_layers = sum(name.startswith("encoder") for name in layers)
    mel_bins = variables["encoder/conv1/weight"].shape[1]
    architecture = Architecture(d_model, encoder_layers, len(layers) - encoder_layers, mel_bins, vocab_size)
    for name in ("encoder/num_heads", "decoder/num_heads"):  # WhisperSpec determines all other scalars
        if name in variables and (heads := variables[name].tolist()) != architecture.heads:
            raise ModelError(f"{path}: {name} is {heads!r:.80}, expected {architecture.heads} for its width.")
    return architecture


def hugging_face_tensors(variables: Variables, architecture: Architecture, path: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors by Hugging Face name, as views of the variables.

    Raises:
        ModelError: a variable is missing or unknown, or has another shape or type than in this architecture.
    """
    layout, embeddings = weight_layout(architecture), variables["decoder/embeddings/weight"]
    for name, array in variables.items():
        if array.ndim and (array.dtype not in FLOATS or array.dtype != embeddings.dtype):
            raise ModelError(
                f"{path}: {name} is {array.dtype.name}. All weights must be float16, or all float32, because a "
                "quantised model has a different accuracy. Convert it again with --quantization float16."
            )
    if missing := sorted(layout.keys() - variables.keys()):
        raise ModelError(f"{path} lacks {len(missing)} weights of this architecture, first {missing[0]}.")
    if unknown := sorted(name for name in variables if variables[name].ndim and name not in layout):
        raise ModelError(f"{path} holds {len(unknown)} variables that Whisper does not have: {', '.join(unknown[:3])}.")
    tensors: dict[str, npt.NDArray[Any]] = {}
    for name, (shape, targets) in layout.items():
        array = variables[name]
        if array.shape != shape:
            raise ModelError(f"{path}: {name} has shape {array.shape}, expected {shape}.")
        for target, part in zip(targets, np.split(array, len(targets)), strict=True):
            if target is not None:
                tensors[target] = part
            elif part.any():
                raise ModelError(f"{path}: the key bias in {name} is not zero, but Whisper has no key biases.")
    # Loaders take the projection from the embeddings, to which it is tied.
    if not np.array_equal(tensors.pop("proj_out.weight"), embeddings):
        raise ModelError(
            f"{path}: decoder/projection/weight differs from the embeddings, but they are tied in Whisper."
        )
    return tensors


def weight_layout(architecture: Architecture) -> Layout:
    """The layout of every weight of a `model.bin`."""
    a, d, ffn = architecture, architecture.d_model, architecture.ffn_dim
    layout = _linear("encoder/conv1", (d, a.mel_bins, 3), "model.encoder.conv1")
    layout |= _linear("encoder/conv2", (d, d, 3), "model.encoder.conv2")
    layout["decoder/embeddings/weight"] = (a.vocab_size, d), ("model.decoder.embed_tokens.weight",)
    layout["decoder/projection/weight"] = (a.vocab_size, d), ("proj_out.weight",)
    stacks = (("encoder", a.encoder_layers, WINDOW_POSITIONS), ("decoder", a.decoder_layers, TEXT_POSITIONS))
    for side, layers, positions in stacks:
        names = (f"model.{side}.embed_positions.weight",)
        layout[f"{side}/position_encodings/encodings"] = (positions, d), names
        layout |= _norm(f"{side}/layer_norm", d, f"model.{side}.layer_norm")
        for index in range(layers):
            source, target = f"{side}/layer_{index}", f"model.{side}.layers.{index}"
            own, cross = f"{target}.self_attn", f"{target}.encoder_attn"
            layout |= _norm(f"{source}/self_attention/layer_norm", d, f"{own}_layer_norm")
            layout |= _linear(f"{source}/self_attention/linear_0", (3 * d, d), *(f"{own}.{x}_proj" for x in "qkv"))
            layout |= _linear(f"{source}/self_attention/linear_1", (d, d), f"{own}.out_proj")
            if side == "decoder":
                layout |= _norm(f"{source}/attention/layer_norm", d, f"{cross}_layer_norm")
                layout |= _linear(f"{source}/attention/linear_0", (d, d), f"{cross}.q_proj")
                layout |= _linear(f"{source}/attention/linear_1", (2 * d, d), f"{cross}.k_proj", f"{cross}.v_proj")
                layout |= _linear(f"{source}/attention/linear_2", (d, d), f"{cross}.out_proj")
            layout |= _norm(f"{source}/ffn/layer_norm", d, f"{target}.final_layer_norm")
            layout |= _linear(f"{source}/ffn/linear_0", (ffn, d), f"{target}.fc1")
            layout |= _linear(f"{source}/ffn/linear_1", (d, ffn), f"{target}.fc2")
    return layout


def _linear(source: str, shape: tuple[int, ...], *targets: str) -> Layout:
    """Weight and bias of one or several stacked linear layers or convolutions; key projections have no bias."""
    biases = tuple(None if target.endswith(".k_proj") else f"{target}.bias" for target in targets)
    weights = tuple(f"{target}.weight" for target in targets)
    return {f"{source}/weight": (shape, weights), f"{source}/bias": (shape[:1], biases)}


def _norm(source: str, width: int, target: str) -> Layout:
    return {f"{source}/gamma": ((width,), (f"{target}.weight",)), f"{source}/beta": ((width,), (f"{target}.bias",))}
