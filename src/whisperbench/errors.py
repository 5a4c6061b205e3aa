"""The errors that whisperbench raises on purpose.

One family: a flow catches `WhisperbenchError`, prints its message and exits.  Every message names
what was wrong, with the numbers, and the way out.
"""

from __future__ import annotations

from pathlib import Path

from whisperbench.text import escape_control


class WhisperbenchError(Exception):
    """Something that the person who typed the command can understand and mend."""

    exit_status = 1


class ConfigError(WhisperbenchError):
    """An option has a value that is not allowed, or two options contradict each other."""

    exit_status = 2  # what click uses for a wrong command line


class ModelError(WhisperbenchError):
    """A checkpoint cannot be found, read or converted, or is not Whisper."""


class CorpusError(WhisperbenchError):
    """A corpus cannot be found or contradicts itself."""


class AudioError(WhisperbenchError):
    """An audio file cannot be decoded; the message names the file."""


class EngineError(WhisperbenchError):
    """The engine cannot start with these settings, or died while it worked; `log` is what it wrote until then."""

    def __init__(self, message: str = "", log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


class BundleError(WhisperbenchError):
    """A result bundle is incomplete, from another schema, or not a bundle."""


class ComparisonError(WhisperbenchError):
    """Runs that were asked for cannot be found, or may not be compared with each other.

    The message may name runs: what others wrote is made visible, so that a terminal does not obey it.
    """

    exit_status = 2

    def __init__(self, message: str) -> None:
        super().__init__(escape_control(message))


class TrackingError(WhisperbenchError):
    """The tracking server cannot be reached or refuses; what was measured is safe on disk."""

    exit_status = 3


class SweepError(WhisperbenchError):
    """A sweep got to its end, but not everything in it succeeded."""
