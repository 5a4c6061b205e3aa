"""An engine that stops working for good is ended with a cause; one that pauses is told apart from one that is slow."""

from __future__ import annotations

import time

import pytest

from tests.support.fakes import FakeEngine
from whisperbench.engines import watchdog
from whisperbench.engines.base import Clip
from whisperbench.engines.watchdog import StallWatchdog


def clip(index: int = 0) -> Clip:
    return Clip(index, audio=None)  # type: ignore[arg-type] - nobody reads it


def test_a_pause_that_no_work_explains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty seconds, and three times what the warm-up held; here tenths of them."""
    monkeypatch.setattr(watchdog, "FROZEN_SECONDS", 0.3)
    with StallWatchdog(FakeEngine(), 0) as watch:
        taken = watch.heartbeat.of(map(clip, range(3)))
        next(taken)
        time.sleep(0.35)
        next(taken)
    frozen = watch.frozen_seconds(usual=0.05)
    assert frozen is not None
    assert 0.35 <= frozen < 5
    assert watch.frozen_seconds(usual=frozen / 2) is None
    with StallWatchdog(FakeEngine(), 0) as again:
        again.heartbeat.tick()
    assert again.frozen_seconds(usual=0.0) is None
