"""Model files of CTranslate2, written independently of the code under test."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]

TYPE_IDS = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}

D = 64

TIED = [("decoder/projection/weight", "decoder/embeddings/weight")]


def pack(
    variables: Mapping[str, np.ndarray[Any, Any]],
    aliases: Sequence[tuple[str, str]] = (),
    header: tuple[int, str, int] = (6, "WhisperSpec", 3),
) -> bytes:
    """The bytes of a `model.bin`, written independently of the code under test."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    parts = [struct.pack("<I", header[0]), text(header[1]), struct.pack("<II", header[2], len(variables))]
    for name, array in variables.items():
        parts += [text(name), struct.pack("<B", array.ndim), struct.pack(f"<{array.ndim}I", *array.shape)]
        parts += [struct.pack("<BI", TYPE_IDS[array.dtype.name], array.nbytes), array.tobytes()]
    parts.append(struct.pack("<I", len(aliases)))
    parts += [text(name) for pair in aliases for name in pair]
    return b"".join(parts)


def tiny_whisper() -> Arrays:
    """The variables of the smallest English-only Whisper: one layer of one head on each side."""
    rng = np.random.default_rng(32)

    def weight(*shape: int) -> np.ndarray[Any, Any]:
        return rng.standard_normal(shape, dtype=np.float32).astype(np.float16)

    def linear(scope: str, outputs: int, inputs: int) -> Arrays:
        return {f"{scope}/weight": weight(outputs, inputs), f"{scope}/bias": weight(outputs)}

    def norm(scope: str) -> Arrays:
        return {f"{scope}/gamma": weight(D), f"{scope}/beta": weight(D)}

    variables: Arrays = {
        "decoder/activation": np.array(3, np.int8),
        "decoder/alibi": np.array(0, np.int8),
        "decoder/alignment_heads": np.array(1, np.int16),
        "decoder/alignment_layer": np.array(-1, np.int16),
        "decoder/pre_norm": np.array(1, np.int8),
        "decoder/scale_embeddings": np.array(0, np.int8),
        "decoder/start_from_zero_embedding": np.array(0, np.int8),
        "decoder/num_heads": np.array(1, np.int16),
        "encoder/num_heads": np.array(1, np.int16),
        "decoder/embeddings/weight": weight(51_864, D),
        "decoder/position_encodings/encodings": weight(448, D),
        "encoder/position_encodings/encodings": weight(1500, D),
        "encoder/conv1/weight": weight(D, 80, 3),
        "encoder/conv1/bias": weight(D),
        "encoder/conv2/weight": weight(D, D, 3),
        "encoder/conv2/bias": weight(D),
    }
    for side in ("encoder", "decoder"):
        layer = f"{side}/layer_0"
        variables |= norm(f"{side}/layer_norm") | norm(f"{layer}/self_attention/layer_norm")
        variables |= linear(f"{layer}/self_attention/linear_0", 3 * D, D)
        variables[f"{layer}/self_attention/linear_0/bias"][D : 2 * D] = 0
        variables |= linear(f"{layer}/self_attention/linear_1", D, D)
        variables |= norm(f"{layer}/ffn/layer_norm")
        variables |= linear(f"{layer}/ffn/linear_0", 4 * D, D) | linear(f"{layer}/ffn/linear_1", D, 4 * D)
    cross = "decoder/layer_0/attention"
    variables |= norm(f"{cross}/layer_norm") | linear(f"{cross}/linear_0", D, D) | linear(f"{cross}/linear_1", 2 * D, D)
    variables[f"{cross}/linear_1/bias"][:D] = 0
    return variables | linear(f"{cross}/linear_2", D, D)
