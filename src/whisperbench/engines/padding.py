"""Which encoder positions of a window are kept, and what each of them stands for.

Whisper pads every clip to 30 s, 1,500 positions, and needs the padding: without it the model repeats itself.  It does
not need all of it.  Kept are the positions of the audio and of one second after it (dense), and of the silence behind
those every k-th (sparse), with log k added to the attention's logits: each stands for k almost equal keys (proportional
attention of token merging, Bolya et al. 2023, applied to silence).
"""

from __future__ import annotations

import functools
import math

from whisperbench.constants import WINDOW_POSITIONS
from whisperbench.corpus.audio import SAMPLE_RATE

POSITIONS_PER_SECOND = 50
MARGIN_SECONDS = 1.0
"""Silence after the audio that stays whole."""

CACHE_BLOCK = 16
"""Keys in a block of the attention cache.  Sparse keys begin a block of their own, wherever the dense ones end."""

UNUSED_SLOTS = CACHE_BLOCK - 1
"""Places in the cache that a thinned window has beyond the positions that it keeps: those between its dense and its
sparse keys, and the rest at its end.  Always as many, so that the number of all places tells the dense ones."""

TYPICAL_SECONDS = 7.4
"""Mean length of LibriSpeech's test-clean; how many windows are handed over at once follows from it."""


def dense_positions(samples: int, stride: int) -> int:
    """Positions that stay whole for so many samples at 16 kHz: all 1,500 where thinning the rest would save nothing.

    One more than wanted where the last sparse position would stand for itself alone: with it or without, as many are
    kept, and how many are kept has to tell the dense ones.
    """
    wanted = math.ceil((samples / SAMPLE_RATE + MARGIN_SECONDS) * POSITIONS_PER_SECOND)
    return _dense_count_from_slots(min(wanted, WINDOW_POSITIONS), stride)


def _dense_count_from_slots(dense: int, stride: int) -> int:
    if stride == 1:
        return dense
    dense += (WINDOW_POSITIONS - dense) % stride == 1
    return dense if kept_positions(dense, stride) + UNUSED_SLOTS < WINDOW_POSITIONS else WINDOW_POSITIONS


def sparse_positions(dense: int, stride: int) -> range:
    """The kept positions behind the dense ones."""
    return range(dense, WINDOW_POSITIONS, stride)


def kept_positions(dense: int, stride: int) -> int:
    """How many positions are kept: what the encoder computes."""
    return dense + len(sparse_positions(dense, stride))


def cache_slots(dense: int, stride: int) -> int:
    """Places that a window has in the cross-attention's cache: what vLLM takes for its length."""
    return min(WINDOW_POSITIONS, kept_positions(dense, stride) + (UNUSED_SLOTS if stride > 1 else 0))


def first_sparse_slot(dense: int) -> int:
    """Where in the cache the sparse keys begin: the first block behind the dense ones."""
    return -(-dense // CACHE_BLOCK) * CACHE_BLOCK


def frames_of(dense: int) -> int:
    """Frames that the convolutions are given for so many dense positions: two each, and one position of silence more,
    so that the last dense one sees what it would see in the whole window."""
    return 2 * dense + (2 if dense < WINDOW_POSITIONS else 0)


def dense_of(frames: int) -> int:
    """The inverse of `frames_of`."""
    return min(frames, 2 * WINDOW_POSITIONS) // 2 - (frames < 2 * WINDOW_POSITIONS)


def typical_slots(stride: int) -> int:
    """Places of a window of typical length."""
    return cache_slots(dense_positions(round(TYPICAL_SECONDS * SAMPLE_RATE), stride), stride)


def log_weight(stride: int) -> float:
    """What is added to the attention's logit of a sparse position."""
    return math.log(stride)


@functools.cache
def dense_by_slots(stride: int) -> tuple[int, ...]:
    """How many keys of a window with n places are dense, for every n from 0 to 1,500.

    A number that no window has (an engine's warm-up has such) counts like the next smaller one; below them all is none.
    """
    table, dense = [0] * (WINDOW_POSITIONS + 1), 0
    told = {_dense_count_from_slots(wanted, stride) for wanted in range(1, WINDOW_POSITIONS + 1)}
    known = {cache_slots(d, stride): d for d in told}
    for places in range(WINDOW_POSITIONS + 1):
        dense = table[places] = known.get(places, dense)
    return tuple(table)
