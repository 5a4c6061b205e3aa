"""A store that cannot be used is one sentence with status 3, which names what to change."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.store.entities import PagedList

from tests.support.stores import fresh_store
from whisperbench.errors import TrackingError
from whisperbench.tracking import client as tracking_client
from whisperbench.tracking.client import call_with_timeout, connect, file_of, search_experiments, tracking_errors

pytestmark = pytest.mark.usefixtures("no_project_run")

SECRET = "s3cret-pa55word"  # noqa: S105


def test_pages_without_end(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that has no end is an error at its limit."""
    monkeypatch.setattr(tracking_client, "SEARCH_SECONDS", 0.1)
    monkeypatch.setattr(client, "search_experiments", lambda **_: PagedList([], "more"))
    with pytest.raises(TrackingError, match="did not finish a list"):
        search_experiments(client)


def test_a_call_that_hangs() -> None:
    """It ends after its timeout; an error of the call itself reaches the caller, and so does a result."""
    with pytest.raises(TrackingError, match=r"http://\*\*\*@host did not answer within 0 s"):
        call_with_timeout(0.1, lambda: time.sleep(5), f"http://me:{SECRET}@host")
    with pytest.raises(ZeroDivisionError):
        call_with_timeout(5, lambda: 1 / 0, "http://host")
    assert call_with_timeout(5, lambda: [], "http://host") == []


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("mssql+pyodbc://ann:{}@host/db", r"pyodbc.*Install the Python package"),
        ("http://[::1", "failed to answer .* Check MLFLOW_TRACKING_URI"),
        ("nonsense://host", r"failed to answer .* Check MLFLOW_TRACKING_URI"),
        ("http://host:port", r"failed to answer .* Check MLFLOW_TRACKING_URI"),
        # closed port: the error is immediate, and MLflow would repeat it for 100 s; psycopg may not be installed
        ("postgresql://ann:{}@127.0.0.1:9/db", r"failed to answer .*(refused|Install the Python package)"),
    ],
)
def test_an_address_that_cannot_be_used(address: str, reason: str) -> None:
    """Status 3; the message names the package or the setting, and no password."""
    with pytest.raises(TrackingError, match=reason) as caught:
        connect(address.format(SECRET))
    assert caught.value.exit_status == 3
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("answers", [True, False])
def test_a_server_that_is_down_or_silent(answers: bool) -> None:
    """Known within 10 s, by its address and without the password."""
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        if answers:
            listener.listen()
        started = time.perf_counter()
        with pytest.raises(TrackingError, match=f"127.0.0.1:{port}") as caught:
            connect(f"http://ann:{SECRET}@127.0.0.1:{port}")
    assert time.perf_counter() - started < 10
    assert SECRET not in str(caught.value)


def test_a_defect_is_not_an_error_of_the_server() -> None:
    """It ends with status 70 and a traceback."""
    with pytest.raises(TypeError), tracking_errors("http://host", "answer"):
        raise TypeError


def garbage(file: Path) -> None:
    file.write_bytes(b"This is a shopping list, not a database. " * 100)


def old(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")


@pytest.mark.parametrize(("spoil", "reason"), [(garbage, "not a database"), (old, "out-of-date")])
def test_a_store_that_cannot_be_opened(
    spoil: Callable[[Path], None], reason: str, tmp_path: Path, empty_store: Path
) -> None:
    """A damaged file, and one that needs a migration: the words of SQLite or MLflow, before the engine starts."""
    address = fresh_store(tmp_path, empty_store)
    spoil(tmp_path / "mlflow.db")
    with pytest.raises(TrackingError, match=rf"mlflow\.db failed to answer \(.*{reason}"):
        connect(address)


def test_a_lock(tmp_path: Path, empty_store: Path) -> None:
    """Opening a database waits while another process writes to it."""
    address = fresh_store(tmp_path, empty_store)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        timer = threading.Timer(1.0, other.rollback)
        timer.start()
        assert connect(address).search_experiments()
        timer.join()


def test_which_addresses_are_files() -> None:
    """SQLAlchemy's spelling: three slashes and a path."""
    assert file_of("sqlite:////data/mlflow.db") == Path("/data/mlflow.db")
    assert file_of("sqlite:///mlflow.db") == Path("mlflow.db").absolute()
    assert file_of("sqlite:///:memory:") is file_of("http://host:5000") is file_of("postgresql://host/db") is None
