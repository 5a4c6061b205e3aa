"""Pauses of an engine: an unusual one makes a pass invalid."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.fakes import FakeEngine
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines import watchdog
from whisperbench.engines.watchdog import StallWatchdog


def utterance(number: int) -> Utterance:
    """An utterance whose file is not read."""
    return Utterance(utt_id=str(number), audio=Path("none"), reference=None, speaker=None)


def test_a_pause_that_no_work_explains(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause is unusual from MIN_PAUSE_SECONDS on, if it is three times the longest of the warm-up."""
    monkeypatch.setattr(watchdog, "MIN_PAUSE_SECONDS", 0.3)
    with StallWatchdog(FakeEngine(), 0) as watch:
        taken = watch.heartbeat.of(map(utterance, range(3)))
        next(taken)
        time.sleep(0.35)
        next(taken)
    pause = watch.heartbeat.longest_pause
    assert 0.35 <= pause < 5
    assert watch.unusual_pause(usual=0.05) == f"the engine made no progress for {pause:.0f} s"
    assert watch.unusual_pause(usual=pause / 2) is None
    with StallWatchdog(FakeEngine(), 0) as again:
        again.heartbeat.tick()
    assert again.unusual_pause(usual=0.0) is None
