"""Errors that whisperbench raises itself, with their exit statuses.

A command catches `WhisperbenchError`, prints its message and exits.  Every message states what is wrong, why, and what
to do.  Exit statuses of all commands:

    0    success
    1    failed, or the gate found a regression
    2    wrong usage, not comparable, or the gate is undecided
    3    the tracking server cannot be reached or refuses
    70   unexpected error, which is not in this family
    128+n  ended by signal n
"""

from __future__ import annotations

from pathlib import Path

from whisperbench.text import escape_control


class WhisperbenchError(Exception):
    """An error that the user of the command can understand and correct."""

    exit_status = 1


class ConfigError(WhisperbenchError):
    """An option has a value that is not allowed, or two options contradict each other."""

    exit_status = 2  # click's status for wrong usage


class ModelError(WhisperbenchError):
    """A checkpoint cannot be found, read or converted, or is not Whisper."""


class CorpusError(WhisperbenchError):
    """A corpus cannot be found or contradicts itself."""


class AudioError(WhisperbenchError):
    """An audio file cannot be decoded; the message names the file."""


class EngineError(WhisperbenchError):
    """The engine cannot start with these settings, or failed during the run; `log` is its output."""

    def __init__(self, message: str = "", log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


class BundleError(WhisperbenchError):
    """A result bundle is incomplete, from another schema, or not a bundle."""


class ComparisonError(WhisperbenchError):
    """Runs cannot be found, or may not be compared with each other.

    The message may contain names of runs, in which control characters are escaped for the terminal.
    """

    exit_status = 2

    def __init__(self, message: str) -> None:
        super().__init__(escape_control(message))


class TrackingError(WhisperbenchError):
    """The tracking server cannot be reached or refuses; the result is on disk."""

    exit_status = 3


class SweepError(WhisperbenchError):
    """A sweep has ended, but not all of its runs succeeded."""
