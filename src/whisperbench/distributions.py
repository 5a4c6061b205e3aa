"""Which packages are installed here, told without importing them."""

from __future__ import annotations

import importlib.metadata


def installed(distribution: str) -> str | None:
    """The version of an installed distribution; None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
