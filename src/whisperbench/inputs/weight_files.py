"""The weight files of a checkpoint directory: which they are, and whether they are whole."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from whisperbench.errors import ModelError
from whisperbench.inputs.tokenizer import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"

WEIGHT_PATTERNS = (SINGLE, INDEX, "model-?????-of-?????.safetensors")
"""Not `*.safetensors`: openai/whisper-large-v3 holds a second, float32 copy beside the weights."""

HEADER_LIMIT_BYTES = 100 * 2**20  # the limit of the format itself


def weight_files(directory: Path) -> tuple[str, ...]:
    """Names of the safetensors files of a checkpoint, each checked for being whole.

    Raises:
        ModelError: there are none (a pickle is not taken), one is missing, or one is cut short.
    """
    if (directory / SINGLE).is_file():
        names: tuple[str, ...] = (SINGLE,)
    elif (directory / INDEX).is_file():
        names = _shards(directory)
    else:
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt") for path in directory.glob(pattern))
        hint = (
            f" {pickles[0]} is a pickle, which runs code when it is loaded: save it as safetensors." if pickles else ""
        )
        raise ModelError(f"{directory} holds no weights as safetensors ({SINGLE}, or shards with {INDEX}).{hint}")
    if missing := [name for name in names if not (directory / name).is_file()]:
        raise ModelError(f"{directory} lacks {len(missing)} of {len(names)} weight files: {', '.join(missing[:3])}.")
    for name in names:
        _check_length(directory / name)
    return names


def _shards(directory: Path) -> tuple[str, ...]:
    weight_map = read_json(directory / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{directory / INDEX} names no files.")
    names = set(map(str, weight_map.values()))
    if outside := sorted(name for name in names if Path(name).name != name):
        raise ModelError(f"{directory / INDEX} names a file outside its directory: {outside[0]!r}.")
    return tuple(sorted(names))


def _check_length(path: Path) -> None:
    """A download or copy that broke off leaves a header which promises more bytes than there are."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > min(HEADER_LIMIT_BYTES, size - 8):
                raise ModelError(f"{path} is not a whole safetensors file: {size:,} bytes, {length:,} of them header.")
            header: Any = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        wanted = 8 + length + int(max(ends, default=0))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as safetensors: {error}") from error
    if wanted != size:
        raise ModelError(f"{path} is {size:,} bytes long and should be {wanted:,}: the copy or download broke off.")
