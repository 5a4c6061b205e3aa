"""Real tracking servers for tests, and ways to break them."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.support.stores import fresh_store

START_SECONDS = 120
REQUEST = re.compile(rb"(GET|POST|PUT|PATCH|DELETE|HEAD) ")


def free_port() -> int:
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def served_store(directory: Path, template: Path) -> str:
    """A fresh SQLite store whose artifacts go through the server, as those of a server that made it would."""
    store = fresh_store(directory, template)
    with contextlib.closing(sqlite3.connect(directory / "mlflow.db")) as database, database:
        database.execute("UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'")
    return store


class Server:
    """`mlflow server` in a process group of its own, over a store that outlives it; a test can restart it.

    No file that it writes grows beyond `file_bytes`.
    """

    def __init__(
        self,
        directory: Path,
        store: str,
        *,
        command: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        file_bytes: int = resource.RLIM_INFINITY,
    ) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = directory / "server.log"
        self.served = directory / "served"
        self.directory, self.file_bytes = directory, file_bytes
        self.environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **(env or {})}
        self.command = [*command] or [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(self.port)),
            *("--backend-store-uri", store, "--artifacts-destination", str(self.served)),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, cwd=self.directory, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (self.file_bytes, self.file_bytes))
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        return self

    def kill(self) -> None:
        """SIGKILL to all of it, in the middle of whatever it does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=2) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except OSError:
            return False


class Proxy:
    """A TCP proxy in front of a server that can cut connections: from the n-th request on, before or after the server
    has seen it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.address = f"http://127.0.0.1:{self.port}"
        self.requests = 0
        self._lock = threading.Lock()
        self._cut_from: int | None = None
        self._cut_until: int | None = None
        self._answer_lost = False
        self.drips = False  # answers come one byte at a time
        self.swallows: bytes | None = None
        """What begins so is answered by a page, as by a login in front of a server: b"PUT " of artifacts, b"" all."""
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self, cut_from: int | None = None, *, answer_lost: bool = False, cut_until: int | None = None) -> None:
        """Count from 0 again, and cut request `cut_from` and all after it (up to `cut_until`)."""
        with self._lock:
            self.requests = 0
            self._cut_from, self._cut_until, self._answer_lost = cut_from, cut_until, answer_lost

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed: the end
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            lost = threading.Event()
            threading.Thread(target=self._answers, args=(server, client, lost), daemon=True).start()
            while data := client.recv(65_536):
                if self.swallows is not None and data.startswith(self.swallows):
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<html></html>")
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(65_536):
                        pass
                    return
                if REQUEST.match(data) and self._is_cut():
                    if not self._answer_lost:
                        return
                    lost.set()
                server.sendall(data)

    def _is_cut(self) -> bool:
        with self._lock:
            self.requests += 1
            if self._cut_from is None or self.requests < self._cut_from:
                return False
            return self._cut_until is None or self.requests <= self._cut_until

    def _answers(self, server: socket.socket, client: socket.socket, lost: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                if lost.is_set():
                    break
                while self.drips and data:
                    client.sendall(data[:1])
                    data = data[1:]
                    time.sleep(0.2)
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
