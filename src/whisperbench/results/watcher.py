"""Whoever is told of a measurement while it goes on, before there is a result."""

from __future__ import annotations

from whisperbench.measure.clock import Transcript
from whisperbench.results.contents import RunStart


class Watcher:
    """Hears nothing; a subclass hears what it overrides.  `clock_started` and `finished` stand in the timed region:
    they only take note."""

    def known(self, start: RunStart) -> None:
        """What is known before the engine starts; called again when more is."""

    def clock_started(self) -> None:
        """A pass over the corpus begins, warmed up."""

    def finished(self, transcript: Transcript) -> None:
        """An utterance has its text."""

    def clock_stopped(self) -> None:
        """The last pass is over."""
