"""CTranslate2 checkpoints, converted to the Hugging Face layout."""

from __future__ import annotations

import dataclasses
import math
import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whisperbench.checkpoint.architecture import TEXT_POSITIONS, Architecture, write_model_config
from whisperbench.checkpoint.files import read_json
from whisperbench.checkpoint.tokenizer import added_tokens, read_tokenizer, write_tokenizer
from whisperbench.constants import WINDOW_POSITIONS
from whisperbench.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt
    from tokenizers import Tokenizer


FORMAT = (6, "WhisperSpec", 3)  # version of the file, specification, its revision: as CTranslate2 4.8 writes them
TYPES = {0: "<f4", 1: "|i1", 2: "<i2", 3: "<i4", 4: "<f2"}
FLOATS = {np.dtype("<f4"): "float32", np.dtype("<f2"): "float16"}
MAX_RANK = 3


def read_variables(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Every variable of a `model.bin` by name, aliases included; the arrays are views of the mapped file.

    Raises:
        ModelError: the file cannot be read, is cut short, or is not a Whisper of CTranslate2.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise ModelError(f"{path} cannot be read: {error}") from error
    reader = _Reader(path, data)
    found = reader.number("I"), reader.text(), reader.number("I")
    if found != FORMAT:
        raise reader.error(f"version, specification and revision are {found}; known is {FORMAT}. Convert it again")
    variables: dict[str, npt.NDArray[Any]] = {}
    for _ in range(reader.number("I")):
        name = reader.text()
        if name in variables:
            raise reader.error(f"{name} comes twice")
        variables[name] = reader.array(name)
    stored = set(variables)
    for _ in range(reader.number("I")):
        alias, name = reader.text(), reader.text()
        if name not in stored or alias in variables:
            raise reader.error(f"alias {alias} of {name} has no meaning")
        variables[alias] = variables[name]
    if reader.offset != len(data):
        raise reader.error(f"{len(data) - reader.offset} bytes follow the end")
    return variables


class _Reader:
    """Reads forward through the file; a length that leads past its end is a ModelError."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data, self.offset = path, data, 0

    def error(self, what: str) -> ModelError:
        return ModelError(f"{self._path} is not a readable CTranslate2 file at byte {self.offset}: {what[:300]}.")

    def number(self, kind: str) -> int:
        size = struct.calcsize("<" + kind)
        return int(struct.unpack("<" + kind, self._data[self._take(size) : self.offset])[0])

    def text(self) -> str:
        length = self.number("H")
        raw = self._data[self._take(length) : self.offset]
        if not raw.endswith(b"\0"):
            raise self.error("a text does not end with NUL")
        try:
            return raw[:-1].decode("ascii")
        except UnicodeDecodeError as error:
            raise self.error(f"a name is not ASCII: {raw[:80]!r}") from error

    def array(self, name: str) -> npt.NDArray[Any]:
        if (rank := self.number("B")) > MAX_RANK:
            raise self.error(f"{name} has {rank} dimensions")
        shape = [self.number("I") for _ in range(rank)]
        kind, size = self.number("B"), self.number("I")
        if kind not in TYPES:
            hint = " (bfloat16: convert it again with --quantization float16)" if kind == 5 else ""
            raise self.error(f"{name} has type {kind}{hint}")
        dtype = np.dtype(TYPES[kind])
        if math.prod(shape) * dtype.itemsize != size:
            raise self.error(f"{name} has shape {shape} of {dtype.name}, but {size} bytes")
        if size == 0:  # which no weight is; numpy has no view of nothing
            raise self.error(f"{name} is empty, its shape is {shape}")
        return np.frombuffer(self._data, dtype, math.prod(shape), self._take(size)).reshape(shape)

    def _take(self, size: int) -> int:
        if size > len(self._data) - self.offset:
            raise self.error(f"{size} bytes should follow, {len(self._data) - self.offset} do: the file is cut short")
        start, self.offset = self.offset, self.offset + size
        return start


@dataclasses.dataclass(frozen=True, slots=True)
class Weight:
    """One weight of `model.bin`: its shape, and the tensors that it holds stacked along axis 0.

    None in place of a name: that part is a bias which the Hugging Face layout does not have, so it must be zero.
    """

    name: str
    shape: tuple[int, ...]
    tensors: tuple[str | None, ...]


def weights_of(architecture: Architecture) -> Iterator[Weight]:
    """Every weight of `model.bin` and where it goes."""
    a, d = architecture, architecture.d_model
    yield from _affine("encoder/conv1", (d, a.mel_bins, 3), "model.encoder.conv1")
    yield from _affine("encoder/conv2", (d, d, 3), "model.encoder.conv2")
    yield Weight("decoder/embeddings/weight", (a.vocab_size, d), ("model.decoder.embed_tokens.weight",))
    yield Weight("decoder/projection/weight", (a.vocab_size, d), ("proj_out.weight",))
    stacks = (("encoder", a.encoder_layers, WINDOW_POSITIONS), ("decoder", a.decoder_layers, TEXT_POSITIONS))
    for side, layers, positions in stacks:
        names = (f"model.{side}.embed_positions.weight",)
        yield Weight(f"{side}/position_encodings/encodings", (positions, d), names)
        yield from _norm(f"{side}/layer_norm", d, f"model.{side}.layer_norm")
        for index in range(layers):
            yield from _layer(f"{side}/layer_{index}", f"model.{side}.layers.{index}", a, cross=side == "decoder")


def _layer(source: str, target: str, architecture: Architecture, *, cross: bool) -> Iterator[Weight]:
    d, ffn = architecture.d_model, architecture.ffn_dim
    own = f"{target}.self_attn"
    yield from _norm(f"{source}/self_attention/layer_norm", d, f"{own}_layer_norm")
    yield from _affine(f"{source}/self_attention/linear_0", (3 * d, d), *(f"{own}.{x}_proj" for x in "qkv"))
    yield from _affine(f"{source}/self_attention/linear_1", (d, d), f"{own}.out_proj")
    if cross:
        other = f"{target}.encoder_attn"
        yield from _norm(f"{source}/attention/layer_norm", d, f"{other}_layer_norm")
        yield from _affine(f"{source}/attention/linear_0", (d, d), f"{other}.q_proj")
        yield from _affine(f"{source}/attention/linear_1", (2 * d, d), *(f"{other}.{x}_proj" for x in "kv"))
        yield from _affine(f"{source}/attention/linear_2", (d, d), f"{other}.out_proj")
    yield from _norm(f"{source}/ffn/layer_norm", d, f"{target}.final_layer_norm")
    yield from _affine(f"{source}/ffn/linear_0", (ffn, d), f"{target}.fc1")
    yield from _affine(f"{source}/ffn/linear_1", (d, ffn), f"{target}.fc2")


def _affine(source: str, shape: tuple[int, ...], *targets: str) -> Iterator[Weight]:
    """Weight and bias of one linear layer or convolution, or of several stacked; keys have no bias."""
    yield Weight(f"{source}/weight", shape, tuple(f"{target}.weight" for target in targets))
    biases = tuple(None if target.endswith(".k_proj") else f"{target}.bias" for target in targets)
    yield Weight(f"{source}/bias", shape[:1], biases)


def _norm(source: str, width: int, target: str) -> Iterator[Weight]:
    yield Weight(f"{source}/gamma", (width,), (f"{target}.weight",))
    yield Weight(f"{source}/beta", (width,), (f"{target}.bias",))


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
