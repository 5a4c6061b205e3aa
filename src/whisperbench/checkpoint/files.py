"""Files of a checkpoint: JSON, weight files, and the download from the Hugging Face hub."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from whisperbench.errors import ModelError
from whisperbench.files import file_sha256


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ModelError: the file is missing or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} does not hold a JSON object.")
    return value


SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"

WEIGHT_PATTERNS = (SINGLE, INDEX, "model-?????-of-?????.safetensors")
"""Not `*.safetensors`, because openai/whisper-large-v3 has a second, float32 copy of the weights."""


def weight_files(directory: Path) -> tuple[str, ...]:
    """Names of the safetensors files of a checkpoint, which are complete according to their headers.

    Raises:
        ModelError: the weights are not safetensors, or a file is missing or truncated.
    """
    from safetensors import SafetensorError, safe_open

    if (directory / SINGLE).is_file():
        names: tuple[str, ...] = (SINGLE,)
    elif (directory / INDEX).is_file():
        weight_map = read_json(directory / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelError(f"{directory / INDEX} has no weight_map.")
        names = tuple(sorted(set(map(str, weight_map.values()))))
    else:
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt") for path in directory.glob(pattern))
        hint = f" {pickles[0]} is a pickle, which runs code when loaded. Save it as safetensors." if pickles else ""
        raise ModelError(f"{directory} has no weights as safetensors ({SINGLE}, or shards with {INDEX}).{hint}")
    if missing := [name for name in names if not (directory / name).is_file()]:
        raise ModelError(f"{directory} lacks {len(missing)} of {len(names)} weight files: {', '.join(missing[:3])}.")
    for path in (directory / name for name in names):
        try:
            with safe_open(path, framework="numpy"):
                pass
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"{path} cannot be read as safetensors: {error}. The file has {path.stat().st_size:,} bytes. If it is "
                "incomplete, download or copy it again."
            ) from error
    return names


def require_published(path: Path) -> None:
    """Require that a file in the cache of the hub has the content that the hub published.

    The cache names it by the hub's digest, SHA-256 for large files and Git's SHA-1 for others; a copy of the cache
    without links has no such names and is not checked.

    Raises:
        ModelError: the content is another one.
    """
    stored = path.resolve()
    if re.fullmatch("[0-9a-f]{64}", stored.name):
        found = file_sha256(stored)
    elif re.fullmatch("[0-9a-f]{40}", stored.name):
        content = stored.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    else:
        return
    if found != stored.name:
        raise ModelError(f"{path} was altered after its download. Delete {stored}, so that it is downloaded again.")


HUB_TIMEOUT_SECONDS = 8

CONFIGURATION_FILES = ("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json")
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "normalizer.json"),
)


def download_checkpoint(hub_id: str, revision: str, *, with_weights: bool) -> Path:
    """The snapshot directory of a hub model, named by its commit.

    If the hub cannot be reached, an earlier download is used.

    Raises:
        ModelError: the model or the revision does not exist, or no earlier download does.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    patterns = [*CONFIGURATION_FILES, *TOKENIZER_FILES, *(WEIGHT_PATTERNS if with_weights else ())]
    try:
        # `snapshot_download` has no timeout for its first request.
        HfApi().model_info(hub_id, revision=revision, timeout=HUB_TIMEOUT_SECONDS)
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
    except RevisionNotFoundError as error:
        raise ModelError(f"{hub_id} has no branch, tag or commit {revision!r} on the hub.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"The hub has no model {hub_id}, or it is private. Log in with `hf auth login` or set HF_TOKEN."
        ) from error
    except Exception as error:  # versions of huggingface_hub raise errors of different HTTP libraries
        with contextlib.suppress(OSError, ValueError):
            return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns, local_files_only=True))
        cause = str(error).strip().partition("\n")[0][:300].rstrip(".") or type(error).__name__
        raise ModelError(
            f"{hub_id} cannot be downloaded from the Hugging Face hub ({cause}), and the local cache does not hold "
            f"revision {revision!r}. Use a local checkpoint directory, model=demo, or load_format=dummy (random "
            "weights, for throughput only)."
        ) from error
