"""Something happens when a process is gone, and only then."""

from __future__ import annotations

import threading

from whisperbench.processes.watch import POLL_SECONDS, ProcessWatch


def test_a_process_that_never_was() -> None:
    """Counts as gone: it may have ended before anybody could look."""
    called = threading.Event()
    ProcessWatch([4194399], called.set)
    assert called.wait(2 * POLL_SECONDS)
