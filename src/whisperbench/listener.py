"""What long work tells whoever watches it: a terminal, a log, a notebook, or nobody.

The library knows no terminal.  Whoever calls it passes a `Listener`; `flows.terminal` has the one that people see.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


class Listener:
    """Hears nothing; a subclass hears what it overrides.  Called from the thread that works, so it must be quick."""

    def said(self, sentence: str) -> None:
        """Something that a person wants to know now."""

    def warned(self, sentence: str) -> None:
        """Something that makes the result doubtful, or that a person should mend."""

    @contextlib.contextmanager
    def counting(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:  # noqa: ARG002
        """While the block runs the callable is told how many of `total` are done; `unit` is that of their rate."""
        yield lambda _done: None

    @contextlib.contextmanager
    def waiting(self, what: str, phase: Callable[[], str]) -> Iterator[None]:  # noqa: ARG002
        """While the block runs something is waited for; `phase` may be asked from another thread how far it is."""
        yield

    def show(self, record: object) -> None:
        """A record that has changed or come to its end, to be drawn by whoever knows its type."""
