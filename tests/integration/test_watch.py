"""A callback is called when a process has ended."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator

import pytest

from whisperbench.processes.watch import POLL_SECONDS, watch_processes


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes that live until the test ends them."""
    started = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_one_of_several_is_killed(processes: list[subprocess.Popen[bytes]]) -> None:
    """The callback is called then and not before, although the parent has not waited for the process yet."""
    called = threading.Event()
    stop = watch_processes([process.pid for process in processes], called.set)
    assert not called.wait(2 * POLL_SECONDS)
    processes[1].kill()
    assert called.wait(60)
    stop()


def test_a_watch_that_was_stopped(processes: list[subprocess.Popen[bytes]]) -> None:
    """Nothing is called when the processes end later."""
    called = threading.Event()
    watch_processes([process.pid for process in processes], called.set)()
    processes[0].kill()
    assert not called.wait(2 * POLL_SECONDS)


def test_a_process_that_never_was() -> None:
    """It counts as ended, because it may have ended before the watch began."""
    called = threading.Event()
    watch_processes([4194399], called.set)
    assert called.wait(60)
