"""A tracking store in one SQLite file is created by one process at a time: two at once corrupt its schema."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

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
