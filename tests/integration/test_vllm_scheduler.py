"""When the scheduler admits windows, with vLLM's own part replaced."""

from __future__ import annotations

import collections
import types
from typing import Any

import pytest

SEQUENCES = 256


@pytest.mark.parametrize(
    ("running", "waiting", "new", "admits"),
    [
        (0, 3, 3, True),  # nothing else to do
        (200, 150, 0, False),  # 56 windows fit, of the 95 in a batch
        (161, 150, 0, False),
        (160, 150, 0, True),
        (100, 20, 5, False),  # more are arriving
        (100, 20, 0, True),  # the last ones of a pass
        (150, 20, 0, False),
    ],
)
def test_windows_are_admitted_in_whole_batches(
    running: int, waiting: int, new: int, admits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch is whole if a further window would exceed 47,000 positions: 95 of 490, with one that waits."""
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler

    from whisperbench.engines.vllm.scheduler import BatchScheduler

    def start(scheduler: Any) -> None:
        scheduler.max_num_active_reqs, scheduler.max_num_encoder_input_tokens = SEQUENCES, 47_000

    monkeypatch.setattr(AsyncScheduler, "__init__", start)
    monkeypatch.setattr(AsyncScheduler, "schedule", lambda scheduler, _throttle: scheduler.max_num_active_reqs)
    window = types.SimpleNamespace(mm_features=[types.SimpleNamespace(mm_position=types.SimpleNamespace(length=490))])
    scheduler = BatchScheduler()
    scheduler.running, scheduler.waiting = [window] * running, collections.deque([window] * (waiting - new))
    scheduler.schedule()
    scheduler.waiting.extend([window] * new)
    assert scheduler.schedule() == (SEQUENCES if admits else 0)
