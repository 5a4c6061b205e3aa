"""The tracking server: connection, time limits, errors, and the lock of an SQLite store."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from whisperbench.errors import TrackingError
from whisperbench.text import redact, without_password
from whisperbench.util import gc_paused

if TYPE_CHECKING:
    from mlflow import MlflowClient


CREATE_SECONDS = 60
"""MLflow needs some seconds to create a store, and the next process waits for that."""
LOCK_SECONDS = 20
"""How long a database that another process is writing to is waited for, as MLflow does."""


def file_of(address: str) -> Path | None:
    """The file of a SQLite store; None for a server, another database, or one in memory."""
    if not address.startswith("sqlite"):
        return None
    import sqlalchemy

    name = sqlalchemy.engine.make_url(address).database
    return Path(name).absolute() if name and name != ":memory:" else None


@contextlib.contextmanager
def created_by_one(file: Path) -> Iterator[None]:
    """Lock the directory of the store, which leaves no lock file behind, and read the store once.

    Raises:
        OSError: the directory cannot be created or read.
        sqlite3.Error: the file is locked or is not a database; MLflow would retry for 100 s before it reports that.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks on directories
            fcntl.flock(directory, fcntl.LOCK_EX)
        with contextlib.closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        yield
    finally:
        os.close(directory)


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


Client: TypeAlias = "MlflowClient"
"""For those who are told of a server and may not import MLflow."""

REQUEST_SECONDS = 20
OLDEST_SERVER = (2, 4)  # the first with datasets as inputs of a run
PAGE = 1_000
DATABASE_PACKAGES = ("sqlalchemy", "alembic", "sqlite3")
UI_PORT = "MLFLOW_PORT"  # what `mlflow ui` takes its port from, too


def connect(tracking_uri: str | None = None) -> MlflowClient:
    """A client of the tracking server that is known to answer, and to be new enough.

    Raises:
        TrackingError: the server did not answer within 9 s, refused, or is too old.
    """
    # With MLflow's own settings a dead server blocks for 245 s.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_SECONDS))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout carries the result
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints what it raises, with a traceback
    import mlflow

    address = tracking_uri or str(mlflow.get_tracking_uri())

    file = file_of(address)

    def ask() -> tuple[MlflowClient, str | None]:
        with tracking_errors(address, "does not answer"), created_by_one(file) if file else contextlib.nullcontext():
            client = mlflow.MlflowClient(tracking_uri=address)  # a database is looked at here already
            version = server_version(client)
            client.search_experiments(max_results=1)
            return client, version

    client, version = call_with_timeout(CREATE_SECONDS if file else CONNECT_SECONDS, ask, address)
    if version is not None and _numbers(version) < OLDEST_SERVER:
        raise TrackingError(
            f"The tracking server {without_password(address)} is MLflow {version}: it cannot hold the "
            f"data set of a run. Version {'.'.join(map(str, OLDEST_SERVER))} or newer is needed."
        )
    return client


def password_in(address: str) -> str | None:
    """What to say of an address with a password in it; None where there is none."""
    if not urlsplit(address).password:
        return None
    return (
        "MLFLOW_TRACKING_URI holds a password, which `mlflow run` prints in its last lines: give it in "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, and the address without it."
    )


def server_version(client: MlflowClient) -> str | None:
    """The MLflow version of a server; None for a store without one, or where something else answers."""
    if not str(client.tracking_uri).startswith("http"):
        return None
    from mlflow.utils.rest_utils import http_request

    answer = http_request(client._tracking_client.store.get_host_creds(), "/version", "GET", max_retries=0, timeout=5)
    text = str(answer.text).strip()
    return text if answer.ok and text[:1].isdigit() and len(text) < 30 else None


@contextlib.contextmanager
def tracking_errors(client: MlflowClient | str, what: str) -> Iterator[None]:
    """Turn MLflow's, the network's and a database's errors into one sentence with the address and no password."""
    import requests
    import urllib3
    from mlflow.exceptions import MlflowException

    known = (MlflowException, requests.RequestException, urllib3.exceptions.HTTPError, OSError)
    try:
        yield
    except Exception as error:
        # Those of a database by name: importing them takes a second, which whoever has a server need not wait for.
        if not isinstance(error, known) and type(error).__module__.partition(".")[0] not in DATABASE_PACKAGES:
            raise
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        address = without_password(client if isinstance(client, str) else str(client.tracking_uri))
        raise TrackingError(
            f"The tracking server {address} {what} ({redact(reason, os.environ)}). "
            "Check MLFLOW_TRACKING_URI and the server."
        ) from error


def all_pages(ask: Callable[[int, str | None], Any]) -> list[Any]:
    """Everything that `ask(results in a page, token of the page)` finds."""
    from mlflow.utils import get_results_from_paginated_fn

    # Among SQLAlchemy's 95 objects a run, none of them dead, looking for garbage took more than half of the time
    # (1,000 runs of a SQLite store: 5.3 s of CPU with it, 2.3 s without).
    def page(size: int, token: str | None) -> Any:
        with gc_paused():
            return ask(size, token)

    found: list[Any] = get_results_from_paginated_fn(page, PAGE)
    return found


def search_runs(client: MlflowClient, experiment_ids: list[str], condition: str) -> list[Any]:
    """Every run of the experiments that meets a condition, the newest first."""
    return all_pages(
        lambda size, token: client.search_runs(experiment_ids, condition, max_results=size, page_token=token)
    )


def search_experiments(client: MlflowClient) -> list[Any]:
    """Every experiment that is not deleted."""
    return all_pages(lambda size, token: client.search_experiments(max_results=size, page_token=token))


def ui_address(client: MlflowClient) -> str:
    """Where the MLflow UI answers: the server's address without a password, or that of `mlflow ui` on this machine."""
    address = str(client.tracking_uri)
    return re.sub(r"//[^/@]*@", "//", address).rstrip("/") if serves_ui(client) else f"http://127.0.0.1:{ui_port()}"


def serves_ui(client: MlflowClient) -> bool:
    """Whether a server is there: for a database somebody starts `mlflow ui`."""
    return str(client.tracking_uri).startswith("http")


def ui_port() -> str:
    """The port of `mlflow ui`."""
    return os.environ.get(UI_PORT) or "5000"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
