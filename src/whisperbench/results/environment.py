"""The environment of a run: environment.txt with all versions, and the git state of the source."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from whisperbench.engines.hardware import Hardware

CHECKOUT = Path(__file__).resolve().parents[3]


@functools.cache
def describe_environment(hardware: Hardware) -> str:
    """Python, system, GPU and every installed distribution as `name==version`; cached, because it reads many files.

    The text contains no environment variables, so no secrets.
    """
    distributions = (each.metadata for each in importlib.metadata.distributions())
    packages = {f"{each['Name'].lower()}=={each['Version']}" for each in distributions if each["Name"]}
    gpu = f"{hardware.gpu_count} x {hardware.gpu_name}" if hardware.has_gpu else f"none (CPU: {hardware.gpu_name})"
    return "\n".join(
        [
            f"python {platform.python_version()}",
            f"system {platform.system()} {platform.release()} {platform.machine()}",
            f"gpu {gpu}",
            *(f"gpu_uuid {device.uuid}" for device in hardware.devices if not device.node),
            f"gpu_driver {hardware.cuda_driver or 'none'}",
            "",
            *sorted(packages),
            "",
        ]
    )


def git_commit() -> str | None:
    """The commit of the checkout that this package is imported from; None outside a checkout."""
    return _git("rev-parse", "HEAD")


def git_is_dirty() -> bool | None:
    """Whether that checkout has uncommitted changes; None outside a checkout."""
    changes = _git("status", "--porcelain")
    return None if changes is None else bool(changes)


def _git(*arguments: str) -> str | None:
    if not (CHECKOUT / ".git").exists():  # a package in site-packages may lie inside another repository
        return None
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
