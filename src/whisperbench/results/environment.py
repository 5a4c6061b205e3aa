"""What a run ran on, as text for people who want to repeat it: environment.txt, and the state of the source."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from whisperbench.engines.hardware import Hardware


def describe_environment(hardware: Hardware) -> str:
    """Python, system, GPU and every installed distribution as `name==version`.

    Built from names and versions alone: no index address, no variable of the environment, so no secret.
    """
    gpu = f"{hardware.gpu_count} x {hardware.gpu_name}" if hardware.has_gpu else f"none (CPU: {hardware.gpu_name})"
    return "\n".join(
        [
            f"python {platform.python_version()}",
            f"system {platform.system()} {platform.release()} {platform.machine()}",
            f"gpu {gpu}",
            f"gpu_driver {hardware.cuda_driver or 'none'}",
            "",
            *(f"{name}=={version}" for name, version in packages()),
            "",
        ]
    )


@functools.cache
def packages() -> tuple[tuple[str, str], ...]:
    """Name and version of every installed distribution, sorted; read once a process: hundreds of files are parsed."""
    read = (distribution.metadata for distribution in importlib.metadata.distributions())
    return tuple(sorted({(str(each["Name"]).lower(), str(each["Version"])) for each in read if each["Name"]}))


def git_commit() -> str | None:
    """The commit of the source tree that this package runs from; None outside a git checkout."""
    return _git("rev-parse", "HEAD") if _git("ls-files", "--error-unmatch", __file__) else None


def git_is_dirty() -> bool | None:
    """Whether that source tree has uncommitted changes; None outside a git checkout."""
    return bool(_git("status", "--porcelain", ":/")) if git_commit() else None


def _git(*words: str) -> str | None:
    """The output of a git command in the package's directory; None if it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - the user's own git
            ["git", *words],  # noqa: S607
            cwd=Path(__file__).resolve().parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
