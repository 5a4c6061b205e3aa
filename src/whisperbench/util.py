"""Helpers of several packages: garbage collector, installed distributions, and the name of the command."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import os
import shlex
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Disable the garbage collector during a block that creates many objects and releases few."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def typed_command() -> str | None:
    """`whisperbench` as a user can type it: its path in this environment if it is not on the user's PATH.

    None in an environment with only the pins of conda.yaml, where only `mlflow run` starts whisperbench.
    """
    if shutil.which("whisperbench") and "MAKELEVEL" not in os.environ:  # make adds the environment to its own PATH
        return "whisperbench"
    script, here = Path(sysconfig.get_path("scripts"), "whisperbench"), Path.cwd()
    if not script.exists():
        return None
    return shlex.quote(str(script.relative_to(here) if script.is_relative_to(here) else script))
