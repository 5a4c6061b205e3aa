"""Text and JSON from files that nobody vouches for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from whisperbench.errors import ModelError

LIMIT_BYTES = 64 * 2**20
"""Fifteen times the largest real file: what is longer is not read into memory."""


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        ModelError: it is too large.
        OSError, ValueError: it is missing, or not UTF-8.
    """
    if (size := path.stat().st_size) > LIMIT_BYTES:
        raise ModelError(f"{path} is {size:,} bytes long; at most {LIMIT_BYTES:,} are read.")
    return path.read_text(encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelError: it is missing, too large or not a JSON object.
    """
    try:
        value = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds no JSON object.")
    return value
