"""Client of the tracking server: connection, timeouts, errors, searches, and the lock of a SQLite store."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from whisperbench.errors import TrackingError
from whisperbench.text import redact, without_password
from whisperbench.util import gc_paused

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

T = TypeVar("T")
Client: TypeAlias = "MlflowClient"
"""Type for annotations in packages that must not import MLflow."""

CREATE_SECONDS = 60
"""Timeout for opening a SQLite store, in which a process may wait for another one that creates the tables."""
CONNECT_SECONDS = 9
FILL_SECONDS = 600
CLOSE_SECONDS = 60
LOCK_SECONDS = 20
"""Timeout for a SQLite database that another process has locked; the same value as in MLflow."""
REQUEST_SECONDS = 20
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
PAGE = 1_000
DATABASE_PACKAGES = ("sqlalchemy", "alembic", "sqlite3")


def connect(tracking_uri: str | None = None) -> MlflowClient:
    """A client of the tracking server, after one successful request.

    Raises:
        TrackingError: the server refused the request or did not answer within CONNECT_SECONDS.
    """
    # With MLflow's own settings a dead server blocks for 245 s.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_SECONDS))
    os.environ.setdefault(RETRIES, "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout carries the result
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs errors that it also raises
    import mlflow

    address = tracking_uri or str(mlflow.get_tracking_uri())
    file = file_of(address)

    def open_client() -> MlflowClient:
        with tracking_errors(address, "answer"), created_by_one(file) if file else contextlib.nullcontext():
            client = mlflow.MlflowClient(tracking_uri=address)  # opens or creates the database of a SQLite store
            client.search_experiments(max_results=1)
            return client

    return call_with_timeout(CREATE_SECONDS if file else CONNECT_SECONDS, open_client, address)


def file_of(address: str) -> Path | None:
    """The file of a SQLite store; None for a server, another database, or a database in memory."""
    url = urlsplit(address)
    name = url.path[1:]  # sqlite:///relative, sqlite:////absolute
    return Path(name).absolute() if url.scheme.startswith("sqlite") and name not in ("", ":memory:") else None


@contextlib.contextmanager
def created_by_one(file: Path) -> Iterator[None]:
    """Lock the directory of a SQLite store while MLflow opens it, so that only one process creates the tables.

    The file is opened with sqlite3 before, because MLflow retries for 100 s if it is locked or not a database.

    Raises:
        OSError: the directory cannot be created or read.
        sqlite3.Error: the file is locked or is not a database.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems do not support locks on directories
            fcntl.flock(directory, fcntl.LOCK_EX)
        with contextlib.closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        yield
    finally:
        os.close(directory)


def call_with_timeout(seconds: float, call: Callable[[], T], address: str) -> T:
    """Run `call` in a daemon thread, which does not prevent the process from ending if it hangs; return its result.

    Raises:
        TrackingError: `call` has not returned after `seconds`.
        Exception: `call` raised it.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # raised again in the calling thread
            future.set_exception(error)

    threading.Thread(target=run, name="call-with-timeout", daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError as error:
        if future.done():  # raised by `call` itself
            raise
        raise TrackingError(
            f"The tracking server {without_password(address)} did not answer within {seconds:.0f} s. "
            "Check MLFLOW_TRACKING_URI and the server."
        ) from error


@contextlib.contextmanager
def tracking_errors(client: MlflowClient | str, action: str) -> Iterator[None]:
    """Replace an error of MLflow, the network or a database by a TrackingError without secrets.

    Raises:
        TrackingError: "The tracking server {address} failed to {action} ({reason})."
    """
    import requests
    import urllib3
    from mlflow.exceptions import MlflowException

    expected = (MlflowException, requests.RequestException, urllib3.exceptions.HTTPError, OSError)
    try:
        yield
    except Exception as error:
        # Database errors are recognised by the package of their class, because importing SQLAlchemy takes a second.
        if not isinstance(error, expected) and type(error).__module__.partition(".")[0] not in DATABASE_PACKAGES:
            raise
        reason = _reason(error)
        address = without_password(client if isinstance(client, str) else str(client.tracking_uri))
        raise TrackingError(
            f"The tracking server {address} failed to {action} ({redact(reason, os.environ)}). "
            "Check MLFLOW_TRACKING_URI and the server."
        ) from error


def _reason(error: BaseException) -> str:
    """The operating system's reason for a failed connection, or else the first line of the error."""
    cause: BaseException | None = error
    while cause is not None:  # the messages of requests and MLflow repeat all that they have tried
        if isinstance(cause, ConnectionError | socket.gaierror | TimeoutError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__


@contextlib.contextmanager
def ignore_error(code: str) -> Iterator[None]:
    """Ignore an error of MLflow with this code in a block, and raise every other one."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != code:
            raise


def password_in(address: str) -> str | None:
    """A warning if the server's address contains a password, else None."""
    if not urlsplit(address).password:
        return None
    return (
        "MLFLOW_TRACKING_URI contains a password, which `mlflow run` prints. "
        "Use MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead."
    )


def server_version(client: MlflowClient) -> str | None:
    """The MLflow version of a server; None for a database, and for a server that does not report a version."""
    if not serves_ui(client):
        return None
    from mlflow.utils.rest_utils import http_request

    answer = http_request(client._tracking_client.store.get_host_creds(), "/version", "GET", max_retries=0, timeout=5)
    text = str(answer.text).strip()
    return text if answer.ok and text[:1].isdigit() and len(text) < 30 else None


def get_run(client: MlflowClient, run_id: str) -> Run:
    """Fetch a run.

    Raises:
        TrackingError: the server cannot be reached, or the run does not exist.
    """
    with tracking_errors(client, "return the run"):
        return client.get_run(run_id)


def search_runs(client: MlflowClient, experiment_ids: list[str], condition: str) -> list[Any]:
    """All runs of the experiments that meet an MLflow filter, the newest first."""
    return _all_pages(client.search_runs, experiment_ids, condition)


def search_experiments(client: MlflowClient) -> list[Any]:
    """All experiments that are not deleted."""
    return _all_pages(client.search_experiments)


def _all_pages(search: Callable[..., Any], *arguments: Any) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        # SQLAlchemy creates 95 objects per run. A search for 1,000 runs in SQLite takes 2.3 s of CPU time without
        # the garbage collector and 5.3 s with it.
        with gc_paused():
            page = search(*arguments, max_results=PAGE, page_token=token)
        found += page
        if not (token := page.token):
            return found


def serves_ui(client: MlflowClient) -> bool:
    """Whether the client's store is a server, which serves the UI; a database needs `mlflow ui`."""
    return str(client.tracking_uri).startswith("http")


def ui_address(client: MlflowClient) -> str:
    """Address of the MLflow UI: the server without its password, or `mlflow ui` on this host."""
    if serves_ui(client):
        return re.sub(r"//[^/@]*@", "//", str(client.tracking_uri)).rstrip("/")
    return f"http://127.0.0.1:{ui_port()}"


def ui_port() -> str:
    """Port of `mlflow ui`, from the variable that `mlflow ui` reads."""
    return os.environ.get("MLFLOW_PORT") or "5000"
