"""Which positions of a window are kept."""

from __future__ import annotations

import math

import pytest

from whisperbench.engines.padding import (
    DENSE_MULTIPLE,
    dense_by_kept,
    dense_of,
    dense_positions,
    frames_of,
    kept_positions,
    log_weight,
    sparse_positions,
    typical_positions,
)

SECONDS = (0.0, 0.1, 1.0, 7.4, 15.5, 28.7, 28.76, 29.0, 29.99, 30.0)
STRIDES = (2, 4, 8, 16, 32, 64, 1500)


def test_the_audio_and_a_second_after_it_stay_whole() -> None:
    """Rounded up to whole blocks of the cache, and never more than the window."""
    assert [dense_positions(round(s * 16_000)) for s in SECONDS] == [
        64,
        64,
        112,
        432,
        832,
        1488,
        1488,
        1500,
        1500,
        1500,
    ]


@pytest.mark.parametrize("seconds", SECONDS)
def test_stride_1_keeps_every_position(seconds: float) -> None:
    """As the model was trained."""
    dense = dense_positions(round(seconds * 16_000))
    assert [*range(dense), *sparse_positions(dense, 1)] == list(range(1500))
    assert log_weight(1) == 0


@pytest.mark.parametrize("stride", STRIDES)
def test_the_weights_stand_for_the_whole_window(stride: int) -> None:
    """Dense positions and k times the sparse ones are 1,500, or at most k - 1 more."""
    for seconds in SECONDS:
        dense = dense_positions(round(seconds * 16_000))
        stood_for = dense + math.exp(log_weight(stride)) * len(sparse_positions(dense, stride))
        assert 1500 - 1e-6 <= stood_for < 1500 + stride


@pytest.mark.parametrize("stride", STRIDES)
def test_the_number_of_kept_positions_tells_the_dense_ones(stride: int) -> None:
    """The cross-attention is told no more than that number."""
    table = dense_by_kept(stride)
    for dense in [*range(0, 1500, DENSE_MULTIPLE), 1500]:
        assert table[kept_positions(dense, stride)] == dense
    assert list(table) == sorted(table)


def test_frames_tell_the_dense_positions() -> None:
    """Two frames each and a position of silence more; a full window has no silence behind it."""
    assert frames_of(64) == 130
    assert frames_of(1500) == 3000
    assert all(dense_of(frames_of(dense)) == dense for dense in [*range(64, 1500, DENSE_MULTIPLE), 1500])


def test_a_third_of_a_typical_window_is_kept() -> None:
    """Of 7.4 s, every 16th position of the padding: 499 of 1,500."""
    assert (typical_positions(1), typical_positions(16), typical_positions(64)) == (1500, 499, 449)
