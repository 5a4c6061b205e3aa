"""A tracking store in one SQLite file: made by one process at a time, and what is wrong with it in one sentence."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from whisperbench.errors import TrackingError

LOCK_SECONDS = 20
"""What MLflow itself waits for a database that another process is writing to."""
MAKING_SECONDS = 60
"""To make a store takes MLflow some seconds, on a slow disk or a busy machine some more."""

WAYS_OUT = {
    "locked": "End the process that holds it, or set MLFLOW_TRACKING_URI to another store, best to a server.",
    "readonly": "Give this user the right to write to it and to its directory, or set MLFLOW_TRACKING_URI.",
    "full": "Make room there, or set MLFLOW_TRACKING_URI to another store.",
}
OTHERWISE = "Bring back a copy of it, or move it away and a new one is made; or set MLFLOW_TRACKING_URI."


def file_of(address: str) -> Path | None:
    """The file of a SQLite store; None for a server, another database, or one in memory."""
    if not address.startswith("sqlite"):
        return None
    import sqlalchemy

    name = sqlalchemy.engine.make_url(address).database
    return Path(name).absolute() if name and name != ":memory:" else None


@contextlib.contextmanager
def usable(file: Path) -> Iterator[None]:
    """Inside the block no other process makes the store or brings it up to date: two at once spoil each other's work.

    Raises:
        TrackingError: the file cannot be written to, is no database, or has been locked by another process for 20 s.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        directory = os.open(file.parent, os.O_RDONLY)
    except OSError as error:
        raise _unusable(file, str(error)) from error
    try:
        _lock(directory, file)
        _probe(file)
        yield
    finally:
        os.close(directory)


def _lock(directory: int, file: Path) -> None:
    """A lock on the directory leaves no file behind."""
    deadline = time.monotonic() + MAKING_SECONDS
    while True:
        try:
            return fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise _unusable(file, f"another process has been making it for {MAKING_SECONDS} s, locked") from error
            time.sleep(0.1)
        except OSError:  # a network's file system that locks no directories
            return None


def _probe(file: Path) -> None:
    """Begin to write and leave it at that: SQLite then says what is wrong."""
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            database.execute("BEGIN IMMEDIATE")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            database.execute(f"PRAGMA user_version = {version}")  # a file that may be read only is noticed here
            database.rollback()
    except sqlite3.Error as error:
        waited = f" for {LOCK_SECONDS} s" if "locked" in str(error) else ""
        raise _unusable(file, f"{error}{waited}") from error


def _unusable(file: Path, reason: str) -> TrackingError:
    way_out = next((way for word, way in WAYS_OUT.items() if word in reason), OTHERWISE)
    return TrackingError(f"The tracking store {file} cannot be used: {reason}. {way_out}")
