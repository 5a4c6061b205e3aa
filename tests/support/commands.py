"""The project's commands, in processes of their own and in this one, and a signal to this process."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from click.testing import CliRunner, Result

from whisperbench.processes.guardian import is_gone

PROJECT = Path(__file__).resolve().parents[2]
FAKE_BENCHMARK = (sys.executable, "-m", "tests.support.fake_benchmark")
FAKE_SWEEP = (sys.executable, "-m", "tests.support.fake_sweep", "sweep")


def command(name: str) -> tuple[str, ...]:
    """The words that start one of the project's commands: benchmark, sweep, compare, upload or doctor."""
    return (sys.executable, "-m", "whisperbench", name)


def invoke(name: str, **options: object) -> Result:
    """One of the project's commands in this process; exceptions that are not the project's own propagate."""
    main = importlib.import_module(f"whisperbench.cli.{name}").main
    return CliRunner().invoke(main, words_of(options), catch_exceptions=False)


def words_of(options: dict[str, Any]) -> list[str]:
    """Options as a shell passes them."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]


def python_path() -> dict[str, str]:
    """The environment of a process that imports the project and its tests, whatever its working directory."""
    return {**os.environ, "PYTHONPATH": f"{PROJECT / 'src'}:{PROJECT}"}


def start(
    words: tuple[str, ...], folder: Path, options: dict[str, Any], *, log: Path | None = None, **variables: str
) -> subprocess.Popen[str]:
    """A command as a shell would start it in `folder`, in a process group of its own.

    Its output is written to `log`; without one it is returned by `communicate`.
    """
    output = log.open("a", encoding="utf-8") if log else None
    process = subprocess.Popen(
        [*words, *words_of(options)], cwd=folder, env={**python_path(), **variables}, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=output or subprocess.PIPE, stderr=output or subprocess.PIPE,
    )  # fmt: skip
    if output:
        output.close()
    return process


def run(words: tuple[str, ...], folder: Path, options: dict[str, Any], **variables: str) -> tuple[int, str, str]:
    """The exit status of a command, its stdout and its stderr."""
    process = start(words, folder, options, **variables)
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


def wait_until(
    happens: Callable[[], bool], process: subprocess.Popen[Any], log: Path | None = None, *, seconds: float = 120
) -> None:
    """Return when it happens; it must happen in time and before the process ends."""
    deadline = time.monotonic() + seconds
    while not happens():
        assert process.poll() is None, log.read_text() if log else process.communicate()
        assert time.monotonic() < deadline, log.read_text() if log else "did not happen in time"
        time.sleep(0.02)


def lines_in(path: Path) -> int:
    """Whole lines; none where there is no file yet."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def interrupt(number: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal to this process; Python runs the handler before the sleep is over."""
    os.kill(os.getpid(), number)
    time.sleep(5)


def called(name: str, processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of the processes whose own names contain `name`."""
    return [process for process in processes if not is_gone(process) and name in process.name()]


def still_running(processes: list[psutil.Process], seconds: float = 10.0) -> list[psutil.Process]:
    """Those of the processes that have not ended after so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if not is_gone(process)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def kill_with_guardian(client: int) -> None:
    """Kill a client and its guardian at the same moment, as `killall -9 python` does; the engine has another name."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if str(client) in words and any(word.endswith("guardian.py") for word in words):
                process.kill()
    os.kill(client, signal.SIGKILL)
