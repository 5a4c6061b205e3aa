"""A SQLite store that cannot be used is one sentence, status 3 and no traceback; a new one is created once."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.stores import fresh_store
from whisperbench.errors import TrackingError
from whisperbench.tracking.client import connect, created_by_one, file_of


def garbage(file: Path) -> None:
    file.write_bytes(b"This is a shopping list, not a database. " * 100)


def cut_off(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:5000])


def overwritten(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:100] + b"\xff" * 8000 + whole[8100:])


@pytest.mark.parametrize("spoil", [garbage, cut_off, overwritten], ids=lambda f: f.__name__)
def test_a_file_that_is_no_database(spoil: Callable[[Path], None], tmp_path: Path, empty_store: Path) -> None:
    """Its name and SQLite's own words, at once."""
    address = fresh_store(tmp_path, empty_store)
    spoil(tmp_path / "mlflow.db")
    started = time.monotonic()
    with pytest.raises(TrackingError, match=r"mlflow\.db failed to answer \(.*(not a database|malformed)"):
        connect(address).create_experiment("new")
    assert time.monotonic() - started < 20


def test_a_lock(tmp_path: Path, empty_store: Path) -> None:
    """Opening a database waits while another process writes to it."""
    address = fresh_store(tmp_path, empty_store)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        timer = threading.Timer(1.0, other.rollback)
        timer.start()
        assert connect(address).search_experiments()
        timer.join()


def test_only_one_process_creates_a_store(tmp_path: Path) -> None:
    """While one does, the next waits; no lock file is left."""
    file, entered = tmp_path / "mlflow.db", threading.Event()

    def second() -> None:
        with created_by_one(file):
            entered.set()

    thread = threading.Thread(target=second)
    with created_by_one(file):
        thread.start()
        assert not entered.wait(0.5)
    thread.join(10)
    assert entered.is_set()
    assert list(tmp_path.iterdir()) in ([], [file])


def test_which_addresses_are_files() -> None:
    """SQLAlchemy's spelling: three slashes and a path."""
    assert file_of("sqlite:////data/mlflow.db") == Path("/data/mlflow.db")
    assert file_of("sqlite:///mlflow.db") == Path("mlflow.db").absolute()
    assert file_of("sqlite:///:memory:") is None
    assert file_of("http://host:5000") is None
    assert file_of("postgresql://host/db") is None
