"""Progress events of long operations.

The library passes them to a `Listener`; `whisperbench.cli` has the one that draws them on a terminal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


class Listener:
    """Ignores every event; subclasses override methods, which must return quickly."""

    def said(self, sentence: str) -> None:
        """Report an event."""

    def warned(self, sentence: str) -> None:
        """Report a problem that affects the result or needs an action of the user."""

    @contextlib.contextmanager
    def counting(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:  # noqa: ARG002
        """Show progress during the block; the callable takes how many of `total` are done, `unit` is the rate's."""
        yield lambda _done: None

    @contextlib.contextmanager
    def waiting(self, what: str, phase: Callable[[], str]) -> Iterator[None]:  # noqa: ARG002
        """Show a wait during the block; `phase` returns the current step and may be called from another thread."""
        yield

    def show(self, record: object) -> None:
        """Draw a record that has changed; unknown types are ignored."""
