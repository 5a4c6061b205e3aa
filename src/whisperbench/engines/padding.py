"""The encoder positions that thinned padding keeps, and their weights.

Whisper pads every utterance to 30 s, which is 1,500 encoder positions.  Without padding the model repeats itself, but
it does not need all of it.  Dense positions cover the audio and one second after it.  Of the silence after them every
k-th position is kept (sparse), and log k is added to its attention logits, because it represents k almost equal keys
(the proportional attention of token merging, Bolya et al. 2023, applied to silence).
"""

from __future__ import annotations

import functools
import math

from whisperbench.constants import WINDOW_POSITIONS
from whisperbench.corpus.audio import SAMPLE_RATE

POSITIONS_PER_SECOND = 50
MARGIN_SECONDS = 1.0
"""Silence after the audio whose positions are all kept."""

CACHE_BLOCK = 16
"""Keys in a block of the KV cache.  The sparse keys always begin in a new block after the dense ones."""

UNUSED_SLOTS = CACHE_BLOCK - 1
"""Slots of the KV cache that a thinned window has beyond its kept positions: between the dense and the sparse keys, and
at the end.  Their sum is constant, so that the number of dense keys follows from the number of slots."""

TYPICAL_SECONDS = 7.4
"""Mean length of an utterance of test-clean, from which the number of windows per encoder step follows."""


def dense_positions(samples: int, stride: int) -> int:
    """The number of dense positions for `samples` at 16 kHz: all 1,500 if thinning the rest would save nothing.

    One position is added if the last sparse position would represent only itself.  Otherwise two numbers of dense
    positions would have the same number of kept positions, from which the dense ones are derived.
    """
    wanted = math.ceil((samples / SAMPLE_RATE + MARGIN_SECONDS) * POSITIONS_PER_SECOND)
    return _dense_count_from_slots(min(wanted, WINDOW_POSITIONS), stride)


def _dense_count_from_slots(dense: int, stride: int) -> int:
    if stride == 1:
        return dense
    dense += (WINDOW_POSITIONS - dense) % stride == 1
    return dense if kept_positions(dense, stride) + UNUSED_SLOTS < WINDOW_POSITIONS else WINDOW_POSITIONS


def sparse_positions(dense: int, stride: int) -> range:
    """The kept positions after the dense ones."""
    return range(dense, WINDOW_POSITIONS, stride)


def kept_positions(dense: int, stride: int) -> int:
    """The number of positions that the encoder computes."""
    return dense + len(sparse_positions(dense, stride))


def cache_slots(dense: int, stride: int) -> int:
    """The number of slots of a window in the cross-attention's KV cache, which vLLM regards as its length."""
    return min(WINDOW_POSITIONS, kept_positions(dense, stride) + (UNUSED_SLOTS if stride > 1 else 0))


def first_sparse_slot(dense: int) -> int:
    """The slot of the first sparse key: the beginning of the first block after the dense keys."""
    return -(-dense // CACHE_BLOCK) * CACHE_BLOCK


def frames_of(dense: int) -> int:
    """The number of input frames of the convolutions: two for each dense position, and two frames of silence, so that
    the last dense position has the same inputs as in the whole window."""
    return 2 * dense + (2 if dense < WINDOW_POSITIONS else 0)


def dense_of(frames: int) -> int:
    """The inverse of `frames_of`."""
    return min(frames, 2 * WINDOW_POSITIONS) // 2 - (frames < 2 * WINDOW_POSITIONS)


def typical_slots(stride: int) -> int:
    """The number of slots of a window of typical length."""
    return cache_slots(dense_positions(round(TYPICAL_SECONDS * SAMPLE_RATE), stride), stride)


def log_weight(stride: int) -> float:
    """The value that is added to the attention logits of a sparse position."""
    return math.log(stride)


@functools.cache
def dense_by_slots(stride: int) -> tuple[int, ...]:
    """The number of dense keys of a window with n slots, for every n from 0 to 1,500.

    A number of slots that no window has, as in vLLM's warm-up, is rounded down to the next one; the smallest have 0.
    """
    table, dense = [0] * (WINDOW_POSITIONS + 1), 0
    counts = {_dense_count_from_slots(wanted, stride) for wanted in range(1, WINDOW_POSITIONS + 1)}
    known = {cache_slots(count, stride): count for count in counts}
    for slots in range(WINDOW_POSITIONS + 1):
        dense = table[slots] = known.get(slots, dense)
    return tuple(table)
