"""Progress events of long operations, which the library passes to a `Listener`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


class Listener:
    """Receiver of progress events that ignores them; methods of a subclass must return quickly."""

    def info(self, sentence: str) -> None:
        """Report an event."""

    def warning(self, sentence: str) -> None:
        """Report a problem that affects the result or requires an action of the user."""

    @contextlib.contextmanager
    def counting(self, what: str, total: int, unit: str) -> Iterator[Callable[[], None]]:  # noqa: ARG002
        """Show progress during the block; the yielded callable reports one more item, `unit` is that of the rate."""
        yield lambda: None

    @contextlib.contextmanager
    def waiting(self, what: str, phase: Callable[[], str]) -> Iterator[None]:  # noqa: ARG002
        """Show an activity during the block; `phase` returns its current step and may be called in another thread."""
        yield

    def show(self, record: object) -> None:
        """Show a record, for example a score; records of unknown types are ignored."""
