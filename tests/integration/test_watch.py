"""Something happens when a process is gone, and only then."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator

import pytest

from whisperbench.processes.watch import POLL_SECONDS, ProcessWatch


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two that live for as long as the test."""
    started = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_one_of_several_that_is_killed(processes: list[subprocess.Popen[bytes]]) -> None:
    """Within a second, although its parent has not waited for it yet."""
    called = threading.Event()
    watch = ProcessWatch([process.pid for process in processes], called.set)
    assert not called.wait(2 * POLL_SECONDS)
    processes[1].kill()
    assert called.wait(4 * POLL_SECONDS)
    watch.stop()


def test_after_it_was_stopped_nothing_happens(processes: list[subprocess.Popen[bytes]]) -> None:
    """Processes end as they should, and their watch with them."""
    called = threading.Event()
    ProcessWatch([process.pid for process in processes], called.set).stop()
    processes[0].kill()
    assert not called.wait(2 * POLL_SECONDS)
