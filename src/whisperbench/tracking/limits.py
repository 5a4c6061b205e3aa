"""Limits of time for what a server is asked.

The network's own limits are for silence: a server that sends a byte at a time never comes to one.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from whisperbench.errors import TrackingError
from whisperbench.text import without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

CALL_SECONDS = 60
"""One call of the client; with its one retry a server that is silent takes 42 s."""
LOGGING_SECONDS = 600
"""Files that go there or come back, and the logging of a result as a whole: some MiB."""
MOVING_FILES = ("artifact", "log_text", "log_table", "log_figure", "log_dict", "log_image")


def within(seconds: float, ask: Callable[[], T], address: str) -> T:
    """What `ask` returns, in a thread of its own; whatever hangs there does not hold up the program.

    Raises:
        TrackingError: it has not come to its end after `seconds`.
    """
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:  # raised again in the thread that asked
            errors.append(error)

    thread = threading.Thread(target=run, name="asks the server", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TrackingError(
            f"The tracking server {without_password(address)} does not answer within {seconds:.0f} s. "
            "Check MLFLOW_TRACKING_URI and the server."
        )
    return answers[0]


def limited(client: MlflowClient) -> MlflowClient:
    """The client of a server, each of whose calls comes to an end; of a database as it is."""
    return cast("MlflowClient", _Limited(client)) if str(client.tracking_uri).startswith("http") else client


class _Limited:
    """Everything that a client has; each of its methods within its limit."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found) or name.startswith("_"):
            return found
        seconds = LOGGING_SECONDS if any(word in name for word in MOVING_FILES) else CALL_SECONDS

        @functools.wraps(found)
        def call(*args: Any, **kwargs: Any) -> Any:
            return within(seconds, lambda: found(*args, **kwargs), str(self._client.tracking_uri))

        return call
