"""Whisper checkpoints of CTranslate2 (what faster-whisper loads), converted to the Hugging Face layout.

Each variable is held against the architecture that the tensors tell; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whisperbench.errors import ModelError
from whisperbench.inputs.architecture import Architecture, write_model_config
from whisperbench.inputs.ctranslate2_file import FLOATS, read_variables
from whisperbench.inputs.ctranslate2_weights import weights_of
from whisperbench.inputs.tokenizer import added_tokens, read_tokenizer, write_tokenizer
from whisperbench.inputs.untrusted import read_json

if TYPE_CHECKING:
    import numpy.typing as npt
    from tokenizers import Tokenizer

ATTRIBUTES = {
    "decoder/activation": 3,  # GELU
    "decoder/alibi": 0,
    "decoder/pre_norm": 1,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
}
OPTIONAL_ATTRIBUTES = {"decoder/alibi_use_positive_positions": 0, "decoder/scale_alibi": 0}
MAX_LAYERS = 64  # twice the largest
ALIGNMENT_ATTRIBUTES = {"decoder/alignment_heads", "decoder/alignment_layer"}  # of other model families; unused here


def convert(source: Path, target: Path) -> None:
    """Write the checkpoint of directory `source` to directory `target` in the Hugging Face layout, bit for bit.

    Raises:
        ModelError: a file is missing or broken, or it is not a Whisper in float16 or float32.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = source / "model.bin"
    variables = read_variables(path)
    architecture = read_architecture(variables, path)
    tensors = hugging_face_tensors(variables, architecture, path)
    tokenizer = _tokenizer(source)
    tokens = added_tokens(tokenizer)
    architecture.check_tokens(tokens, source)
    write_model_config(
        target,
        architecture,
        tokens,
        dtype=FLOATS[variables["decoder/embeddings/weight"].dtype],
        generation=_generation(source / "config.json", architecture),
    )
    write_tokenizer(target, tokenizer)
    try:
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:
        raise ModelError(f"{target / 'model.safetensors'} cannot be written: {error}.") from error


def read_architecture(variables: Mapping[str, npt.NDArray[Any]], path: Path) -> Architecture:
    """The dimensions of the model, taken from its tensors.

    Raises:
        ModelError: a tensor that tells them is missing or has another rank.
    """
    embeddings = _need(variables, "decoder/embeddings/weight", 2, path)
    architecture = Architecture(
        d_model=embeddings.shape[1],
        encoder_layers=_layers(variables, "encoder", path),
        decoder_layers=_layers(variables, "decoder", path),
        mel_bins=_need(variables, "encoder/conv1/weight", 3, path).shape[1],
        vocab_size=embeddings.shape[0],
    )
    heads = dict.fromkeys(("encoder/num_heads", "decoder/num_heads"), architecture.heads)
    for name, wanted in (ATTRIBUTES | heads).items():
        _check_attribute(_need(variables, name, 0, path), name, wanted, path)
    for name, wanted in OPTIONAL_ATTRIBUTES.items():
        if name in variables:
            _check_attribute(_need(variables, name, 0, path), name, wanted, path)
    return architecture


def hugging_face_tensors(
    variables: Mapping[str, npt.NDArray[Any]], architecture: Architecture, path: Path
) -> dict[str, npt.NDArray[Any]]:
    """The tensors under their Hugging Face names; views, nothing is copied.

    Raises:
        ModelError: a variable is missing, unknown, or has another shape or type than this architecture's.
    """
    dtype = variables["decoder/embeddings/weight"].dtype
    for name, array in variables.items():
        if array.ndim and (array.dtype not in FLOATS or array.dtype != dtype):
            raise ModelError(
                f"{path}: {name} is {array.dtype.name}. A checkpoint is taken in one type, float16 or float32: a "
                "quantised one is another model where accuracy is compared. Convert again with --quantization float16."
            )
    weights = list(weights_of(architecture))
    attributes = {*ATTRIBUTES, *OPTIONAL_ATTRIBUTES, *ALIGNMENT_ATTRIBUTES, "encoder/num_heads", "decoder/num_heads"}
    known = {weight.name for weight in weights}
    if missing := sorted(known - set(variables)):
        raise ModelError(f"{path} lacks {len(missing)} weights of this architecture, the first is {missing[0]}.")
    if unknown := sorted(set(variables) - known - attributes):
        raise ModelError(f"{path} holds {len(unknown)} variables that Whisper does not have: {', '.join(unknown[:3])}.")
    tensors: dict[str, npt.NDArray[Any]] = {}
    for weight in weights:
        array = variables[weight.name]
        if array.shape != weight.shape:
            raise ModelError(f"{path}: {weight.name} has shape {array.shape}, expected {weight.shape}.")
        for target, part in zip(weight.tensors, np.split(array, len(weight.tensors)), strict=True):
            if target is not None:
                tensors[target] = part
            elif part.any():
                raise ModelError(f"{path}: the key bias in {weight.name} is not zero, and Whisper's keys have no bias.")
    projection, embeddings = variables["decoder/projection/weight"], variables["decoder/embeddings/weight"]
    if projection is not embeddings and not np.array_equal(projection, embeddings):
        raise ModelError(f"{path}: decoder/projection/weight differs from the embeddings, and Whisper's are tied.")
    del tensors["proj_out.weight"]  # tied: loaders take it from the embeddings
    return tensors


def _need(variables: Mapping[str, npt.NDArray[Any]], name: str, rank: int, path: Path) -> npt.NDArray[Any]:
    if name not in variables:
        raise ModelError(f"{path} lacks {name}, which every Whisper has.")
    if variables[name].ndim != rank:
        raise ModelError(f"{path}: {name} has {variables[name].ndim} dimensions, expected {rank}.")
    return variables[name]


def _check_attribute(value: npt.NDArray[Any], name: str, wanted: int, path: Path) -> None:
    if value.item() != wanted:
        raise ModelError(f"{path}: {name} is {value.item()}, and a Whisper of this size has {wanted}.")


def _layers(variables: Mapping[str, npt.NDArray[Any]], side: str, path: Path) -> int:
    """How many layers are named: a gap in the numbers shows as a missing weight later."""
    count = len({match[1] for name in variables if (match := re.match(rf"{side}/layer_(\d+)/", name))})
    if not 1 <= count <= MAX_LAYERS:
        raise ModelError(f"{path} has {count} {side} layers, expected 1 to {MAX_LAYERS}.")
    return count


def _tokenizer(source: Path) -> Tokenizer:
    if not (path := source / "tokenizer.json").is_file():
        raise ModelError(
            f"{source} lacks tokenizer.json. Copy it from the checkpoint that it was made of, or convert again with "
            "--copy_files tokenizer.json."
        )
    return read_tokenizer(path)


def _generation(path: Path, architecture: Architecture) -> dict[str, Any]:
    """What CTranslate2's `config.json` knows of generation, under the names of Hugging Face."""
    config, values = read_json(path), {}
    for ours, theirs in (("suppress_tokens", "suppress_ids"), ("begin_suppress_tokens", "suppress_ids_begin")):
        if (ids := config.get(theirs)) is not None:
            if not isinstance(ids, list) or not all(_in_range(i, architecture.vocab_size) for i in ids):
                raise ModelError(f"{path}: {theirs} is not a list of token ids.")
            values[ours] = ids
    if (heads := config.get("alignment_heads")) is not None:
        limits = architecture.decoder_layers, architecture.heads
        if not isinstance(heads, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and all(map(_in_range, pair, limits)) for pair in heads
        ):
            raise ModelError(f"{path}: alignment_heads is not a list of [layer, head].")
        values["alignment_heads"] = heads
    return values


def _in_range(value: object, limit: int) -> bool:
    return type(value) is int and 0 <= value < limit
