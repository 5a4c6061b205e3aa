"""The weight files of a checkpoint directory: which they are, and whether they are whole."""

from __future__ import annotations

from pathlib import Path

from whisperbench.errors import ModelError
from whisperbench.inputs.untrusted import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"

WEIGHT_PATTERNS = (SINGLE, INDEX, "model-?????-of-?????.safetensors")
"""Not `*.safetensors`: openai/whisper-large-v3 holds a second, float32 copy beside the weights."""


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
        _check_whole(directory / name)
    return names


def _shards(directory: Path) -> tuple[str, ...]:
    weight_map = read_json(directory / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{directory / INDEX} names no files.")
    names = set(map(str, weight_map.values()))
    if outside := sorted(name for name in names if Path(name).name != name):
        raise ModelError(f"{directory / INDEX} names a file outside its directory: {outside[0]!r}.")
    return tuple(sorted(names))


def _check_whole(path: Path) -> None:
    """A download or copy that broke off leaves a header which promises more bytes than there are."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} cannot be read as safetensors: {error}. It is {path.stat().st_size:,} bytes long; "
            "where the copy or download broke off, fetch it again."
        ) from error
