"""Pauses of an engine: an unusual one makes a pass invalid."""

from __future__ import annotations

from whisperbench.engines.watchdog import MIN_PAUSE_SECONDS, UNUSUAL_FACTOR, Heartbeat


def test_a_pause_that_no_work_explains() -> None:
    """A pause is unusual from MIN_PAUSE_SECONDS on, if it is three times the longest of the warm-up."""
    heartbeat = Heartbeat()
    heartbeat.paused(MIN_PAUSE_SECONDS - 1)
    assert heartbeat.unusual_pause(usual=0.0) is None
    heartbeat.paused(MIN_PAUSE_SECONDS + 1)
    assert heartbeat.unusual_pause(usual=1.0) == "the engine made no progress for 31 s"
    assert heartbeat.unusual_pause(usual=heartbeat.longest_pause / UNUSUAL_FACTOR + 1) is None
    heartbeat.start()
    heartbeat.tick()
    assert heartbeat.unusual_pause(usual=0.0) is None
