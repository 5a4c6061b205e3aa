"""Client of the tracking server: connection, limits, errors, searches, and the lock of a SQLite store.

Each call of a client raises a TrackingError if the server cannot be reached, refuses the request or exceeds a limit.
The docstrings of this package name only further errors.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast
from urllib.parse import urlsplit

from whisperbench.errors import TrackingError, WhisperbenchError
from whisperbench.text import redact, shortened, without_password
from whisperbench.util import gc_paused

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")
Client: TypeAlias = "MlflowClient"
"""Type for annotations in modules that must not import MLflow."""

CREATE_SECONDS = 60
"""Timeout for opening a SQLite store, in which a process may wait for another one that creates the tables."""
CONNECT_SECONDS = 9
CALL_SECONDS, TRANSFER_SECONDS = 60, 600
"""Timeouts of one call of a server, and of one that sends files."""
SEARCH_SECONDS = 300
"""Limit of a search, because a server could send pages without end."""
REQUEST_SECONDS = 20
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
PAGE = 1_000
TARGET = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
"""Variables that name the run or the experiment of a command."""


def connect(tracking_uri: str | None = None) -> Client:
    """A client of the tracking server, after one successful request.

    Raises:
        TrackingError: the address is malformed, or the server refused the request or did not answer within
            CONNECT_SECONDS.
    """
    # With MLflow's own settings a dead server blocks for 245 s.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_SECONDS))
    os.environ.setdefault(RETRIES, "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout carries the result
    os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"  # errors of a thread in the background would be lost
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs errors that it also raises
    import mlflow

    address = tracking_uri or str(mlflow.get_tracking_uri())
    with tracking_errors(address, "answer"):
        file = file_of(address)
        if file:
            address = address.replace(urlsplit(address).path, f"/{file}", 1)  # absolute, because it is stored
        if not address.startswith("http"):
            from mlflow.store.db import utils

            utils.MAX_RETRY_COUNT = 1  # MLflow would repeat a failed login ten times in 100 s

        def open_client() -> Client:
            with created_by_one(file) if file else contextlib.nullcontext():
                client = mlflow.MlflowClient(tracking_uri=address)  # opens or creates the database of a SQLite store
                client.search_experiments(max_results=1)
                return client

        client = call_with_timeout(CREATE_SECONDS if file else CONNECT_SECONDS, open_client, address)
    return cast("MlflowClient", _CheckedClient(client, limited=file is None))


class _CheckedClient:
    """An `MlflowClient` that replaces errors by a TrackingError; `limited`: each call ends after a timeout."""

    def __init__(self, client: Client, *, limited: bool) -> None:
        self._client, self._limited = client, limited

    def __getattr__(self, name: str) -> Any:
        found, address = getattr(self._client, name), str(self._client.tracking_uri)
        if not callable(found):
            return found
        seconds = TRANSFER_SECONDS if name.startswith("log_artifact") else CALL_SECONDS

        def call(*args: Any, **options: Any) -> Any:
            with tracking_errors(address, name.replace("_", " ")):
                if self._limited:
                    return call_with_timeout(seconds, lambda: found(*args, **options), address)
                return found(*args, **options)

        return call


def file_of(address: str) -> Path | None:
    """The file of a SQLite store; None for a server, another database, or a database in memory."""
    url = urlsplit(address)
    name = url.path[1:]  # sqlite:///relative, sqlite:////absolute
    return Path(name).absolute() if url.scheme.startswith("sqlite") and name not in ("", ":memory:") else None


@contextlib.contextmanager
def created_by_one(file: Path) -> Iterator[None]:
    """Lock the directory of a SQLite store while MLflow opens it, so that only one process creates the tables."""
    file.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems do not support locks on directories
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def call_with_timeout(seconds: float, call: Callable[[], T], address: str) -> T:
    """The result of `call`, which runs in a daemon thread: if it hangs, it does not prevent the process from ending.

    Raises:
        TrackingError: `call` has not returned after `seconds`, even if the server keeps sending.
        Exception: `call` raised it.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # raised again in the calling thread
            future.set_exception(error)

    threading.Thread(target=run, name="call-with-timeout", daemon=True).start()
    if not wait([future], seconds).done:
        raise TrackingError(
            f"The tracking server {without_password(address)} did not answer within {seconds:.0f} s. "
            "Check MLFLOW_TRACKING_URI and the server."
        )
    return future.result()


@contextlib.contextmanager
def tracking_errors(address: str, action: str) -> Iterator[None]:
    """Replace an error of MLflow, the network or a database by a TrackingError without secrets.

    Raises:
        TrackingError: "The tracking server {address} failed to {action} ({reason})."
    """
    try:
        yield
    except (WhisperbenchError, AttributeError, LookupError, NameError, TypeError):  # the others are defects
        raise
    except Exception as error:  # MLflow raises the errors of many libraries
        reason = redact(shortened(_reason(error)), os.environ)
        raise TrackingError(
            f"The tracking server {without_password(address)} failed to {action} ({reason}). {_remedy(error)}"
        ) from error


def _remedy(error: Exception) -> str:
    code = getattr(error, "error_code", None)
    if isinstance(error, ImportError):
        return "Install the Python package of this database or artifact store."
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return "Check MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, and the permissions of this user."
    refused = code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
    if refused and (given := [name for name in TARGET if name in os.environ]):
        return f"Check or unset {' and '.join(given)}."
    return "Check MLFLOW_TRACKING_URI and the server."


def _reason(error: BaseException) -> str:
    """The operating system's reason for a failed connection, or else the error without SQL statements."""
    cause: BaseException | None = error
    while cause is not None:  # the messages of requests and MLflow are nested
        if isinstance(cause, ConnectionError | socket.gaierror | TimeoutError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return " ".join(re.split(r"\[SQL: |\(Background on this error", str(error))[0].split()) or type(error).__name__


def error_code(error: TrackingError) -> str | None:
    """The code of the MLflow error behind a TrackingError, such as RESOURCE_ALREADY_EXISTS."""
    return getattr(error.__cause__, "error_code", None)


def password_in(address: str) -> str | None:
    """A warning if the server's address contains a password, else None."""
    if not urlsplit(address).password:
        return None
    return (
        "MLFLOW_TRACKING_URI contains a password, which `mlflow run` prints. "
        "Use MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead."
    )


def search_runs(client: Client, condition: str, experiment_ids: list[str] | None = None) -> list[Any]:
    """All runs of the experiments (None = all experiments) that meet an MLflow filter, the newest first."""
    if experiment_ids is None:
        experiment_ids = [each.experiment_id for each in search_experiments(client)]
    return _all_pages(client.search_runs, experiment_ids, condition)


def search_experiments(client: Client) -> list[Any]:
    """All experiments that are not deleted."""
    return _all_pages(client.search_experiments)


def _all_pages(search: Callable[..., Any], *arguments: Any) -> list[Any]:
    found: list[Any] = []
    token, deadline = None, time.monotonic() + SEARCH_SECONDS
    while time.monotonic() < deadline:
        # SQLAlchemy creates 95 objects per run. A search for 1,000 runs in SQLite takes 2.3 s of CPU time without
        # the garbage collector and 5.3 s with it.
        with gc_paused():
            page = search(*arguments, max_results=PAGE, page_token=token)
        found += page
        if not (token := page.token):
            return found
    raise TrackingError(
        f"The tracking server did not finish a list within {SEARCH_SECONDS} s, after {len(found)} entries. Check the "
        "server, or name the experiments to search."
    )


def serves_ui(client: Client) -> bool:
    """Whether the client's store is a server, which serves the UI; a database needs `mlflow ui`."""
    return str(client.tracking_uri).startswith("http")


def ui_address(client: Client) -> str:
    """Address of the MLflow UI: the server without its password, or `mlflow ui` on this host."""
    if serves_ui(client):
        return re.sub(r"//[^/@]*@", "//", str(client.tracking_uri)).rstrip("/")
    return f"http://127.0.0.1:{ui_port()}"


def ui_port() -> str:
    """Port of `mlflow ui`, from the variable that `mlflow ui` reads."""
    return os.environ.get("MLFLOW_PORT") or "5000"
