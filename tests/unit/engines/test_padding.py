"""Which positions of a window are kept."""

from __future__ import annotations

import math

import pytest

from whisperbench.engines.padding import (
    cache_slots,
    dense_by_slots,
    dense_of,
    dense_positions,
    first_sparse_slot,
    frames_of,
    kept_positions,
    log_weight,
    sparse_positions,
    typical_slots,
)

SECONDS = (0.0, 0.1, 1.0, 7.4, 15.5, 28.6, 28.7, 29.0, 29.99, 30.0)
STRIDES = (2, 4, 8, 16, 32, 64, 1500)


def dense_of_seconds(seconds: float, stride: int) -> int:
    return dense_positions(round(seconds * 16_000), stride)


def test_the_audio_and_a_second_after_it_stay_whole() -> None:
    """To the position, and never more than the window."""
    assert [dense_of_seconds(s, 16) for s in SECONDS] == [50, 56, 100, 420, 825, 1480, 1500, 1500, 1500, 1500]


@pytest.mark.parametrize("stride", STRIDES)
def test_a_position_more_only_where_the_last_would_stand_for_itself(stride: int) -> None:
    """Every other window keeps what is wanted, until thinning saves no more than the places it leaves unused."""
    for wanted in range(51, 1468):
        found = dense_positions((wanted - 50) * 320 - 100, stride)
        assert found == wanted + (sparse_positions(wanted, stride)[-1] == 1499)


@pytest.mark.parametrize("seconds", SECONDS)
def test_stride_1_keeps_every_position(seconds: float) -> None:
    """As the model was trained."""
    dense = dense_of_seconds(seconds, 1)
    assert [*range(dense), *sparse_positions(dense, 1)] == list(range(1500))
    assert log_weight(1) == 0
    assert cache_slots(dense, 1) == 1500


@pytest.mark.parametrize("stride", STRIDES)
def test_the_weights_stand_for_the_whole_window(stride: int) -> None:
    """Dense positions and k times the sparse ones are 1,500, or at most k - 1 more."""
    for seconds in SECONDS:
        dense = dense_of_seconds(seconds, stride)
        stood_for = dense + math.exp(log_weight(stride)) * len(sparse_positions(dense, stride))
        assert 1500 - 1e-6 <= stood_for < 1500 + stride


@pytest.mark.parametrize("stride", STRIDES)
def test_the_number_of_places_tells_the_dense_positions(stride: int) -> None:
    """The cross-attention is told no more than that number; dense and sparse keys have room in it."""
    table = dense_by_slots(stride)
    assert (len(table), table[0], table[1500]) == (1501, 0, 1500)
    assert list(table) == sorted(table)
    for samples in range(0, 480_001, 160):
        dense = dense_positions(samples, stride)
        places = cache_slots(dense, stride)
        assert table[places] == dense
        assert dense == places == 1500 or first_sparse_slot(dense) + len(sparse_positions(dense, stride)) <= places


def test_sparse_keys_begin_a_block() -> None:
    """Of 16 keys, behind the dense ones."""
    assert [first_sparse_slot(dense) for dense in (1, 16, 17, 420)] == [16, 16, 32, 432]


def test_frames_tell_the_dense_positions() -> None:
    """Two frames each and a position of silence more; a full window has no silence behind it."""
    assert frames_of(64) == 130
    assert frames_of(1500) == 3000
    assert all(dense_of(frames_of(dense)) == dense for dense in [*range(50, 1499), 1500])


def test_a_third_of_a_typical_window_is_kept() -> None:
    """Of 7.4 s, every 16th position of the padding: 488 of 1,500, in 503 places."""
    assert kept_positions(dense_of_seconds(7.4, 16), 16) == 488
    assert (typical_slots(1), typical_slots(16), typical_slots(64)) == (1500, 503, 452)
