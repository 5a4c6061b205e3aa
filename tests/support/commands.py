"""What tests of commands share: where their processes find this project, and a signal to this process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]


def python_path() -> dict[str, str]:
    """The environment of a process that imports the project and its tests, whatever its working directory."""
    return {**os.environ, "PYTHONPATH": f"{PROJECT / 'src'}:{PROJECT}"}


def interrupt(number: signal.Signals = signal.SIGTERM) -> None:
    """Tell this process; Python runs the handler before the sleep is over."""
    os.kill(os.getpid(), number)
    time.sleep(5)


def forked_from(*modules: str) -> Any:
    """A context of multiprocessing whose processes are forked from one that has these modules imported: milliseconds
    instead of 6 s with MLflow, and of 20 s more with vLLM.  Python has one such server at a time: an earlier one's is
    let go, and ends with the last process that it has forked."""
    context, server = multiprocessing.get_context("forkserver"), forkserver._forkserver  # type: ignore[attr-defined]
    if server._forkserver_pid is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None
    context.set_forkserver_preload(list(modules))
    forkserver.ensure_running()  # now: it outlives the test that asks first
    first = context.Process(target=os.getpid)  # waits until all is imported, which no test's limit should hold
    first.start()
    first.join()
    return context


def run_command(
    command: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    out: Path,
    err: Path,
) -> None:
    """A command as a shell would run it in `folder`, in a process group of its own; what it says goes into files."""
    from tests.support.processes import COMMANDS  # there already: the fork server has it

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # what the fork server found is not this test's
    for stream, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.argv = [command, *arguments]
    COMMANDS[command](list(arguments))


class Command:
    """One of `processes.COMMANDS` in a process of its own, to be used like `subprocess.Popen` with pipes.

    It is forked from a process that has everything imported (the fixture `warm`), which takes milliseconds.
    """

    def __init__(
        self,
        warm: Any,
        name: str,
        words: list[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        log: Path | None = None,  # for both streams, where a test reads them as they grow
    ) -> None:
        if log:
            self._out = self._err = log
        else:
            said = Path(tempfile.mkdtemp(prefix="said-", dir=folder))
            self._out, self._err = said / "out", said / "err"
        arguments = (name, words, dict(environment), folder, self._out, self._err)
        self._process = warm.Process(target=run_command, args=arguments)
        self._process.start()
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        exit_code: int | None = self._process.exitcode
        return exit_code

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0.0, None, self._err.read_bytes())
        return self.returncode

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it said on stdout and stderr, once it has ended."""
        self.wait(timeout)
        return self._out.read_text(), self._err.read_text()
