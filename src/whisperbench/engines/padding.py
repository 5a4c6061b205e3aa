"""Which encoder positions of a window are kept, and what each of them stands for.

Whisper pads every clip to 30 s, 1,500 positions, and needs the padding: without it the model repeats itself.  It does
not need all of it.  Kept are the positions of the audio and of one second after it (dense), and of the silence behind
those every k-th (sparse), with log k added to the attention's logits: each stands for k almost equal keys (proportional
attention of token merging, Bolya et al. 2023, applied to silence).
"""

from __future__ import annotations

import functools
import math

from whisperbench.inputs.architecture import WINDOW_POSITIONS
from whisperbench.inputs.audio import SAMPLE_RATE

POSITIONS_PER_SECOND = 50
MARGIN_SECONDS = 1.0
"""Silence after the audio that stays whole."""

DENSE_MULTIPLE = 16
"""Dense positions come in whole blocks of the attention cache, so that sparse ones begin with a block of their own."""

TYPICAL_SECONDS = 7.4
"""Mean length of LibriSpeech's test-clean; how many windows are handed over at once follows from it."""


def dense_positions(samples: int) -> int:
    """Positions that stay whole for so many samples at 16 kHz: all 1,500 where the audio comes near 30 s."""
    wanted = math.ceil((samples / SAMPLE_RATE + MARGIN_SECONDS) * POSITIONS_PER_SECOND)
    return min(WINDOW_POSITIONS, -(-wanted // DENSE_MULTIPLE) * DENSE_MULTIPLE)


def sparse_positions(dense: int, stride: int) -> range:
    """The kept positions behind the dense ones."""
    return range(dense, WINDOW_POSITIONS, stride)


def kept_positions(dense: int, stride: int) -> int:
    """How many positions are kept: what the encoder computes and the cross-attention's cache holds."""
    return dense + len(sparse_positions(dense, stride))


def frames_of(dense: int) -> int:
    """Frames that the convolutions are given for so many dense positions: two each, and one position of silence more,
    so that the last dense one sees what it would see in the whole window."""
    return 2 * dense + (2 if dense < WINDOW_POSITIONS else 0)


def dense_of(frames: int) -> int:
    """The inverse of `frames_of`."""
    return min(frames, 2 * WINDOW_POSITIONS) // 2 - (frames < 2 * WINDOW_POSITIONS)


def typical_positions(stride: int) -> int:
    """Positions kept of a window of typical length."""
    return kept_positions(dense_positions(round(TYPICAL_SECONDS * SAMPLE_RATE)), stride)


def log_weight(stride: int) -> float:
    """What is added to the attention's logit of a sparse position."""
    return math.log(stride)


@functools.cache
def dense_by_kept(stride: int) -> tuple[int, ...]:
    """How many of n kept positions are dense, for every n from 0 to 1,500: no two dense counts keep the same number.

    A number that no window keeps (an engine's warm-up has such) has the dense count of the next smaller one.
    """
    table, dense = [0] * (WINDOW_POSITIONS + 1), 0
    known = {kept_positions(d, stride): d for d in [*range(0, WINDOW_POSITIONS, DENSE_MULTIPLE), WINDOW_POSITIONS]}
    for kept in range(WINDOW_POSITIONS + 1):
        dense = table[kept] = known.get(kept, dense)
    return tuple(table)
