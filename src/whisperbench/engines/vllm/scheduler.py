"""A scheduler that admits waiting windows only as whole encoder batches.

vLLM admits a request as soon as a sequence is free.  A step with encoder work runs without CUDA graphs for all of its
sequences, so few steps of this kind with many windows are faster than many with few.  The queue of waiting windows can
then always be full, and a batch does not depend on when the client has submitted its windows.
"""

from __future__ import annotations

import itertools
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler


class BatchScheduler(AsyncScheduler):  # type: ignore[misc]  # vLLM has no types
    """vLLM's scheduler, in which steps without a whole encoder batch admit no window."""

    max_num_active_reqs: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._most = self.max_num_active_reqs
        self._waited = 0  # windows that waited in the last step

    def schedule(self, throttle_prefills: bool = False) -> Any:
        self.max_num_active_reqs = self._most if self._has_batch() else 0
        return super().schedule(throttle_prefills)

    def _has_batch(self) -> bool:
        """Whether the windows that wait and fit are a whole encoder batch, or half of all sequences.

        Fewer windows are admitted if no sequence is running, or if half of the sequences are free and no further window
        has arrived since the last step, as at the end of a pass.
        """
        waiting, room = len(self.waiting), self._most - len(self.running)
        arriving, self._waited = waiting > self._waited, waiting
        half = self._most // 2
        positions = 0
        for number, request in enumerate(itertools.islice(self.waiting, room), 1):
            positions += sum(feature.mm_position.length for feature in request.mm_features)
            if positions > self.max_num_encoder_input_tokens or number >= half:
                return True
        return not self.running or (room >= half and not arriving)
