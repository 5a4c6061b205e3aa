"""Small helpers of several packages: the garbage collector paused, and versions of installed packages."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
from collections.abc import Iterator


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Python looks for no garbage inside the block, which makes many objects and lets go of few."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution; None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
