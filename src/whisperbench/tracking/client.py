"""Client of the tracking server: connection, timeouts, errors, searches, and the lock of a SQLite store."""

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
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast
from urllib.parse import urlsplit

from whisperbench.errors import TrackingError, WhisperbenchError
from whisperbench.text import redact, shortened, without_password
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
CALL_SECONDS, TRANSFER_SECONDS = 60, 600
"""Timeouts of one call of a server, and of one that sends files."""
SEARCH_SECONDS, MAX_PAGES = 300, 200
"""Limits of a search, because a server could send pages without end."""
REQUEST_SECONDS = 20
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
PAGE = 1_000
PACKAGES = {
    "MySQLdb": "mysqlclient",
    "botocore": "boto3",
    "google": "google-cloud-storage",
    "azure": "azure-storage-blob",
}
"""Packages whose names differ from those of their modules."""
SETTINGS = {
    "botocore": "Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and outside AWS also MLFLOW_S3_ENDPOINT_URL.",
    "google.auth": "Set GOOGLE_APPLICATION_CREDENTIALS.",
    "azure": "Set AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCESS_KEY.",
}
"""Settings of the libraries of artifact stores, by the package of their errors."""
TARGET = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
"""Variables that name the run or the experiment of a command."""


def connect(tracking_uri: str | None = None) -> MlflowClient:
    """A client of the tracking server, after one successful request.  Each call of a server has a timeout.

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
    try:
        file = file_of(address)
    except ValueError as error:
        raise TrackingError(f"MLFLOW_TRACKING_URI={without_password(address)} is not an address: {error}.") from error
    if file:
        address = address.replace(urlsplit(address).path, f"/{file}", 1)  # absolute, because it is printed and stored

    def open_client() -> MlflowClient:
        with tracking_errors(address, "answer"), created_by_one(file) if file else contextlib.nullcontext():
            if not address.startswith("http"):
                from mlflow.store.db import utils

                utils.MAX_RETRY_COUNT = 1  # MLflow would repeat a failed login ten times in 100 s
            client = mlflow.MlflowClient(tracking_uri=address)  # opens or creates the database of a SQLite store
            client.search_experiments(max_results=1)
            return client

    client = call_with_timeout(CREATE_SECONDS if file else CONNECT_SECONDS, open_client, address)
    return client if file else cast("MlflowClient", _LimitedClient(client))


class _LimitedClient:
    """An `MlflowClient` whose calls raise a TrackingError after a timeout, even if the server keeps sending."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found
        seconds = TRANSFER_SECONDS if name.startswith("log_artifact") else CALL_SECONDS
        address = str(self._client.tracking_uri)
        return lambda *args, **options: call_with_timeout(seconds, lambda: found(*args, **options), address)


def file_of(address: str) -> Path | None:
    """The file of a SQLite store; None for a server, another database, or a database in memory."""
    url = urlsplit(address)
    name = url.path[1:]  # sqlite:///relative, sqlite:////absolute
    return Path(name).absolute() if url.scheme.startswith("sqlite") and name not in ("", ":memory:") else None


@contextlib.contextmanager
def created_by_one(file: Path) -> Iterator[None]:
    """Lock the directory of a SQLite store while MLflow opens it, so that only one process creates the tables.

    Raises:
        OSError: the directory cannot be created or read.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems do not support locks on directories
            fcntl.flock(directory, fcntl.LOCK_EX)
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
    try:
        yield
    except WhisperbenchError:
        raise
    except Exception as error:
        # MLflow raises the errors of many libraries.  Python's own, such as TypeError, are defects of this program.
        kind = type(error)
        if kind.__module__ == "builtins" and kind is not Exception and not isinstance(error, (OSError, ImportError)):
            raise
        reason = _reason(error)
        address = without_password(client if isinstance(client, str) else str(client.tracking_uri))
        raise TrackingError(
            f"The tracking server {address} failed to {action} ({redact(shortened(reason), os.environ)}). "
            f"{_remedy(error)}"
        ) from error


def _remedy(error: Exception) -> str:
    """What to do after an error of a library; the name of a missing package or of a setting."""
    if isinstance(error, ImportError):
        module = (error.name or "").partition(".")[0]
        name = f" {PACKAGES.get(module, module)}" if module else ""
        return f"Install the Python package{name} in this environment."
    if getattr(error, "error_code", None) in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return "Check MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, and the permissions of this user."
    refused = getattr(error, "error_code", None) in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
    if refused and (given := [name for name in TARGET if name in os.environ]):
        return f"Check or unset {' and '.join(given)}."
    module = f"{type(error).__module__}."
    found = (setting for package, setting in SETTINGS.items() if module.startswith(f"{package}."))
    return next(found, "Check MLFLOW_TRACKING_URI and the server.")


def _reason(error: BaseException) -> str:
    """The operating system's reason for a failed connection, or else the error without SQL statements."""
    cause: BaseException | None = error
    while cause is not None:  # the messages of requests and MLflow are nested
        if isinstance(cause, ConnectionError | socket.gaierror | TimeoutError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return " ".join(re.split(r"\[SQL: |\(Background on this error", str(error))[0].split()) or type(error).__name__


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
    return _all_pages(client, "search_runs", experiment_ids, condition)


def search_experiments(client: MlflowClient) -> list[Any]:
    """All experiments that are not deleted."""
    return _all_pages(client, "search_experiments")


def _all_pages(client: MlflowClient, search: str, *arguments: Any) -> list[Any]:
    found: list[Any] = []
    token, deadline = None, time.monotonic() + SEARCH_SECONDS
    for _ in range(MAX_PAGES):
        # SQLAlchemy creates 95 objects per run. A search for 1,000 runs in SQLite takes 2.3 s of CPU time without
        # the garbage collector and 5.3 s with it.
        with gc_paused():
            page = getattr(client, search)(*arguments, max_results=PAGE, page_token=token)
        found += page
        if not (token := page.token):
            return found
        if time.monotonic() > deadline:
            break
    raise TrackingError(
        f"The tracking server {without_password(str(client.tracking_uri))} did not finish its list of "
        f"{search.removeprefix('search_')} within {MAX_PAGES} pages and {SEARCH_SECONDS} s. Check the server, or name "
        "the experiments to search."
    )


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
