"""A time limit for a whole request: a server that sends one byte at a time never reaches the network's own timeouts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from whisperbench.errors import TrackingError
from whisperbench.text import without_password

T = TypeVar("T")

CONNECT_SECONDS = 9
FILL_SECONDS = 600
CLOSE_SECONDS = 60


def call_with_timeout(seconds: float, ask: Callable[[], T], address: str) -> T:
    """Return what `ask` returns; it runs in a daemon thread, so that the process can end although it hangs.

    Raises:
        TrackingError: `ask` has not returned after `seconds`.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(ask())
        except BaseException as error:  # raised again in the calling thread
            errors.append(error)

    thread = threading.Thread(target=run, name="call-with-timeout", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TrackingError(
            f"The tracking server {without_password(address)} does not answer within {seconds:.0f} s. "
            "Check MLFLOW_TRACKING_URI and the server."
        )
    return results[0]
