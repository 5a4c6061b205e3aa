"""Options as a command line gives them."""

from __future__ import annotations

from whisperbench.config.sweep import SweepConfig


def sweep_of(**options: object) -> SweepConfig:
    """The options of a sweep from values in the command line's spelling."""
    return SweepConfig.from_params({name: str(value) for name, value in options.items()})
