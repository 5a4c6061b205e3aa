"""A store in a SQLite file that cannot be used: one sentence, status 3, and no traceback; a fresh one is made once."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import python_path
from tests.support.stores import fresh_store
from whisperbench.errors import TrackingError
from whisperbench.tracking import sqlite_store
from whisperbench.tracking.connection import connect
from whisperbench.tracking.sqlite_store import file_of, usable


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
    """Its name, SQLite's own words, and what to do."""
    address = fresh_store(tmp_path, empty_store)
    spoil(tmp_path / "mlflow.db")
    with pytest.raises(TrackingError, match=r"mlflow\.db cannot be used: .*(not a database|malformed).*move it away"):
        connect(address)


def test_a_lock_is_waited_for(tmp_path: Path, empty_store: Path) -> None:
    """Another process that writes for a second is no error."""
    address = fresh_store(tmp_path, empty_store)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        timer = threading.Timer(1.0, other.rollback)
        timer.start()
        assert connect(address).search_experiments()
        timer.join()


def test_a_lock_that_stays(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit."""
    monkeypatch.setattr(sqlite_store, "LOCK_SECONDS", 1)
    address = fresh_store(tmp_path, empty_store)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        with pytest.raises(TrackingError, match=r"database is locked for 1 s\. End the process that holds it"):
            connect(address)
    assert time.monotonic() - started < 5


def test_one_that_may_not_be_written() -> None:
    """As an ordinary user: whoever is root may write everywhere."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mlflow.db"
        with contextlib.closing(sqlite3.connect(file)) as database:
            database.execute("CREATE TABLE a (b)")
        file.chmod(0o444)
        Path(folder).chmod(0o555)
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(TrackingError, match=r"readonly database\. Give this user the right"), usable(file):
                pytest.fail("the block must not begin")
        finally:
            os.seteuid(was)
            Path(folder).chmod(0o755)


def test_only_one_process_makes_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is at it the others wait, each with a limit."""
    monkeypatch.setattr(sqlite_store, "MAKING_SECONDS", 0.5)
    with usable(tmp_path / "mlflow.db"), pytest.raises(TrackingError, match="another process has been making it"):
        usable(tmp_path / "mlflow.db").__enter__()
    with usable(tmp_path / "mlflow.db"):
        assert not list(tmp_path.glob("*lock*"))


@pytest.mark.server
def test_three_at_once_on_a_fresh_store(tmp_path: Path) -> None:
    """All of them find it made."""
    address = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    program = f"from whisperbench.tracking.connection import connect; connect({address!r}).search_experiments()"
    several = [
        subprocess.Popen([sys.executable, "-c", program], env=python_path(), stderr=subprocess.PIPE) for _ in range(3)
    ]
    said = [process.communicate(timeout=200)[1].decode() for process in several]
    assert [process.returncode for process in several] == [0, 0, 0], "\n".join(said)


@pytest.mark.slow
def test_compare_ends_with_3(tmp_path: Path) -> None:
    """1 would mean that a run is worse."""
    garbage(tmp_path / "mlflow.db")
    environment = {**python_path(), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    command = [sys.executable, "-m", "flows.compare", "--baseline", "x"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("error: The tracking store")
    assert "Traceback" not in done.stderr


def test_which_addresses_are_files() -> None:
    """SQLAlchemy's spelling: three slashes and a path."""
    assert file_of("sqlite:////data/mlflow.db") == Path("/data/mlflow.db")
    assert file_of("sqlite:///mlflow.db") == Path("mlflow.db").absolute()
    assert file_of("sqlite:///:memory:") is None
    assert file_of("http://host:5000") is None
    assert file_of("postgresql://host/db") is None
