"""Errors that a user can correct, with the exit statuses of a command (docs/reliability.md).

A message states what is wrong, why, and what to do.
"""

from __future__ import annotations

from pathlib import Path


class WhisperbenchError(Exception):
    """Failure that the message explains; a command prints it and exits with `exit_status`."""

    exit_status = 1


class ConfigError(WhisperbenchError):
    """An option has a value that is not allowed, or two options contradict each other."""

    exit_status = 2  # click's status for wrong usage


class ModelError(WhisperbenchError):
    """A checkpoint cannot be found, read or converted, or is not a Whisper model."""

    exit_status = 2


class CorpusError(WhisperbenchError):
    """A corpus cannot be found or read, or its files are inconsistent."""

    exit_status = 2


class AudioError(WhisperbenchError):
    """An audio file cannot be decoded or is incomplete; the message names the file."""

    exit_status = 2


class EngineError(WhisperbenchError):
    """The engine cannot start with these settings, or failed during the run; `log` is the file of its output."""

    def __init__(self, message: str = "", log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


class BundleError(WhisperbenchError):
    """A result cannot be written, or a directory is not a complete result bundle of this schema."""


class ComparisonError(WhisperbenchError):
    """Runs cannot be found or are not comparable."""

    exit_status = 2


class TrackingError(WhisperbenchError):
    """The tracking server cannot be reached or refuses a request."""

    exit_status = 3


class SweepError(WhisperbenchError):
    """A sweep has ended, but not all of its runs succeeded."""
