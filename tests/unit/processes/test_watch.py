"""`ProcessWatch` calls its callback when a process has ended."""

from __future__ import annotations

import threading

from whisperbench.processes.watch import POLL_SECONDS, ProcessWatch


def test_a_process_that_never_was() -> None:
    """It counts as ended, because it may have ended before the watch began."""
    called = threading.Event()
    ProcessWatch([4194399], called.set)
    assert called.wait(2 * POLL_SECONDS)
