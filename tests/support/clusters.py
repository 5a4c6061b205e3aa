"""A Ray cluster of several nodes on this host, started as the README says, with a token of its own.

Nodes are ended by their own processes: `ray stop` would end every Ray of the machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import psutil

from tests.support.commands import PROJECT
from whisperbench.engines.parallel.ray_cluster import OBJECT_STORE_BYTES

START_SECONDS, ATTEMPTS = 120.0, 3
FAKE_GPUS = PROJECT / "tests" / "support" / "fake_gpus"


class Node:
    """One `ray start`, and everything that it has started."""

    def __init__(self, words: list[str], env: Mapping[str, str], log: Path) -> None:
        self._log, command = log, ["ray", "start", "--block", *words]
        with log.open("wb") as output:
            self._start = psutil.Popen(command, env=env, stdout=output, stderr=output, start_new_session=True)

    def is_up(self) -> bool:
        """Wait until it is; False where it ended instead: Ray itself gives a node 30 s, whatever the load."""
        deadline = time.monotonic() + START_SECONDS
        while "Ray runtime started" not in (said := self._log.read_text(encoding="utf-8")):
            if self._start.poll() is not None:
                return False
            assert time.monotonic() < deadline, said
            time.sleep(0.2)
        return True

    def processes(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self._start, *self._start.children(recursive=True)]
        return []

    def send(self, number: signal.Signals) -> None:
        """To every process of the node, as if the host were cut off (SIGKILL) or stood still (SIGSTOP)."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


class Cluster:
    """A head and whatever is added; `env` is for a driver.  Each node hands out two CPUs and one GPU, of the kind that
    its file `gpu-<name>` holds."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="wb-", dir="/tmp"))
        self.nodes: dict[str, Node] = {}
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            ports = [each.getsockname()[1] for each in sockets]
        self.address = f"127.0.0.1:{ports[0]}"
        self._head = ["--head", f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}"]
        self._head += [f"--temp-dir={self.folder / 'ray'}", "--include-dashboard=false", "--disable-usage-stats"]
        token = self.folder / "token"
        token.write_text(secrets.token_hex(32))
        # Without the variables of a private Ray that an earlier test has started in this process.
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.env["PYTHONPATH"] = f"{PROJECT / 'src'}:{PROJECT}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes.values():
            node.send(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, name: str, *, before: str = "") -> Node:
        """Start a node; `before` comes first on its Python path."""
        where = self._head if not self.nodes else [f"--address={self.address}"]
        path = os.pathsep.join(filter(None, [before, str(FAKE_GPUS), self.env["PYTHONPATH"]]))
        env = {**self.env, "PYTHONPATH": path, "RAY_worker_niceness": "0", "FAKE_GPU": str(self._gpu(name))}
        self.set_kind(name, "")
        words = ["--node-ip-address=127.0.0.1", "--num-cpus=2", "--num-gpus=1"]
        words += [f"--object-store-memory={OBJECT_STORE_BYTES}", *where]
        log = self.folder / f"{name}.log"
        for _ in range(ATTEMPTS):
            if (node := Node(words, env, log)).is_up():
                self.nodes[name] = node
                return node
            node.send(signal.SIGKILL)
        raise AssertionError(log.read_text(encoding="utf-8"))

    def remove(self, name: str) -> None:
        """Kill a node, and wait until the others have noticed: until then Ray would still place something there."""
        self.nodes.pop(name).send(signal.SIGKILL)
        program = (
            "import sys, time, ray; ray.init(sys.argv[1], log_to_driver=False)\n"
            "while sum(node['Alive'] for node in ray.nodes()) > int(sys.argv[2]): time.sleep(0.5)"
        )
        command = [sys.executable, "-c", program, self.address, str(len(self.nodes))]
        subprocess.run(command, env=self.env, capture_output=True, timeout=START_SECONDS, check=True)

    def set_kind(self, name: str, kind: str) -> None:
        """What GPU a node has from now on; none if it is empty."""
        self._gpu(name).write_text(kind, encoding="utf-8")

    def _gpu(self, name: str) -> Path:
        return self.folder / f"gpu-{name}"
