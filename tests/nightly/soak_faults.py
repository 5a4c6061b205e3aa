"""The faults of the soak: each is caused while a command works, and removed when it has ended."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from tests.support.commands import FAKE_BENCHMARK, command
from tests.support.servers import Proxy, Server

MARK = "WHISPERBENCH_SOAK"  # a variable that every process of a round inherits
HTML = b"<html><body><h1>Sign in</h1></body></html>"
ANSWERS = {
    "500": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "html": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
    % (len(HTML), HTML),
}


class Front(Proxy):
    """A proxy in front of the server; in a `mode` it answers by itself: 500, html, or hang."""

    mode = ""

    def _serve(self, client: socket.socket) -> None:
        if not self.mode:
            super()._serve(client)
            return
        with contextlib.suppress(OSError), client:
            client.recv(65_536)
            while self.mode == "hang":
                time.sleep(0.1)
            client.sendall(ANSWERS.get(self.mode, b""))

    def _is_cut(self) -> bool:
        return bool(self.mode) or super()._is_cut()  # also on connections that were open before


@dataclasses.dataclass
class Round:
    """One command in a directory of its own, and what is around it."""

    directory: Path
    token: str
    server: Server
    front: Front
    chance: random.Random
    process: subprocess.Popen[bytes] | None = None

    @property
    def results(self) -> Path:
        return self.directory / "r"

    @property
    def tmp(self) -> Path:
        return self.directory / "t"  # short: sockets lie in it

    @property
    def corpus(self) -> Path:
        return self.directory / "c"

    @property
    def store(self) -> Path:
        return self.directory / "mlflow.db"

    @property
    def log(self) -> str:
        return (self.directory / "out.log").read_text(errors="replace")

    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def family(self) -> list[psutil.Process]:
        """Every process of this round."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.token and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def engine(self) -> list[psutil.Process]:
        named = []
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                if process.name().startswith("VLLM"):
                    named.append(process)
        return named

    def client(self) -> psutil.Process | None:
        """The process that measures; the command itself, or below a sweep or a launcher."""
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if any(tuple(words[1 : len(start)]) == start[1:] for start in (command("benchmark"), FAKE_BENCHMARK)):
                    return process
        return None


@dataclasses.dataclass(frozen=True)
class Fault:
    """`cause` breaks something; `statuses` are the right ones of a run's command; `mend` is called at its end."""

    cause: Callable[[Round], object]
    statuses: frozenset[int]
    mend: Callable[[Round], object] = lambda _: None
    actions: tuple[str, ...] = ("run",)


def _tell(process: psutil.Process | None, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        if process is not None:
            process.send_signal(number)


def kill_engine(this: Round) -> None:
    if engine := this.engine():
        _tell(this.chance.choice(engine), signal.SIGKILL)


@contextlib.contextmanager
def frozen(processes: list[psutil.Process]) -> Iterator[None]:
    for process in processes:
        _tell(process, signal.SIGSTOP)
    yield
    for process in processes:
        _tell(process, signal.SIGCONT)


def freeze_engine(this: Round) -> None:
    with frozen(this.engine()):
        time.sleep(this.chance.uniform(1, 20))


def freeze_client(this: Round) -> None:
    with frozen([client] if (client := this.client()) else []):
        time.sleep(this.chance.uniform(1, 20))


def signal_command(number: signal.Signals) -> Callable[[Round], None]:
    return lambda this: os.kill(this.pid(), number)


def answer(mode: str) -> Callable[[Round], None]:
    def cause(this: Round) -> None:
        this.front.mode = mode

    return cause


def fill_disk(this: Round) -> None:
    """The measuring process may write no file beyond a few kB from now on."""
    room = this.chance.randrange(30_000)
    with contextlib.suppress(psutil.Error):
        if client := this.client():
            client.rlimit(psutil.RLIMIT_FSIZE, (room, room))


def corrupt_audio(this: Round) -> None:
    files = sorted(this.corpus.glob("*.flac"))
    file = this.chance.choice(files)
    file.write_bytes(file.read_bytes()[: this.chance.randrange(2_000)])


def remove_results(this: Round) -> None:
    shutil.rmtree(this.results, ignore_errors=True)


def lock_store(this: Round) -> None:
    database = sqlite3.connect(this.store, timeout=60, isolation_level=None)
    with contextlib.closing(database), contextlib.suppress(sqlite3.OperationalError):
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(this.chance.uniform(1, 30))
        database.execute("ROLLBACK")


GOES_ON, FAILS, STOPS = frozenset({0}), frozenset({0, 1}), frozenset({0, 3})
SERVED = ("run", "sweep", "upload")

FAULTS: dict[str, Fault] = {
    "nothing": Fault(lambda _: None, GOES_ON, actions=("run", "sweep", "upload", "launcher")),
    "engine killed": Fault(kill_engine, FAILS, actions=("run", "sweep")),
    "engine frozen": Fault(freeze_engine, GOES_ON, actions=("run", "sweep")),
    "command killed": Fault(
        signal_command(signal.SIGKILL), frozenset({-9, 0}), actions=("run", "sweep", "upload", "launcher")
    ),
    "command told to stop": Fault(signal_command(signal.SIGTERM), frozenset({143, 0}), actions=SERVED),
    "command interrupted": Fault(signal_command(signal.SIGINT), frozenset({130, 0})),
    "client frozen": Fault(freeze_client, GOES_ON, actions=("run", "sweep")),
    "server killed": Fault(lambda r: r.server.kill(), STOPS, lambda r: r.server.start(), SERVED),
    "server hangs": Fault(answer("hang"), STOPS, answer(""), SERVED),
    "server says 500": Fault(answer("500"), STOPS, answer(""), SERVED),
    "server says HTML": Fault(answer("html"), STOPS, answer(""), SERVED),
    "disk full": Fault(fill_disk, FAILS),
    "audio corrupt": Fault(corrupt_audio, FAILS),
    "results removed": Fault(remove_results, FAILS),
    "store locked": Fault(lock_store, STOPS),
}
