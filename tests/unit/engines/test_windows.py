"""Splitting an utterance into windows of at most 30 s."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisperbench.corpus.audio import SAMPLE_RATE, WINDOW_SAMPLES, to_16_bits
from whisperbench.engines.windows import MIN_SAMPLES, split

EXAMPLES = 60


def noise(seconds: float, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * SAMPLE_RATE)).astype(np.float32)


@settings(max_examples=EXAMPLES, deadline=None)
@given(size=st.integers(1, 5 * WINDOW_SAMPLES), seed=st.integers(0, 9), quiet=st.floats(0, 1))
def test_split_loses_nothing(size: int, seed: int, quiet: float) -> None:
    """The joined parts are the audio, each fits a window, and none is shorter than 1 s."""
    audio = noise(5 * 30, seed)[:size]
    audio[int(quiet * size) :] = 0
    parts = split(audio, "split")
    assert np.array_equal(np.concatenate(parts), audio)
    assert all(part.size <= WINDOW_SAMPLES for part in parts)
    if len(parts) > 1:
        assert min(part.size for part in parts) >= MIN_SAMPLES
    assert [part.size for part in split(audio, "split")] == [part.size for part in parts]


@pytest.mark.parametrize("pause", [20.5, 24.0, 27.3, 29.6])
def test_split_cuts_in_the_pause(pause: float) -> None:
    """The cut lies inside a pause of 0.3 s in the last 10 s of the window."""
    audio = noise(40)
    audio[round(pause * SAMPLE_RATE) : round((pause + 0.3) * SAMPLE_RATE)] *= 0.01
    first, second = split(audio, "split")
    assert pause < first.size / SAMPLE_RATE < pause + 0.3
    assert first.size + second.size == audio.size


def test_16_bits_are_cut_where_their_floats_are() -> None:
    """int16 samples are cut at the same point as float32 samples, at any loudness."""
    audio = to_16_bits(noise(70))
    assert [part.size for part in split(audio, "split")] == [
        part.size for part in split(audio / np.float32(32_768), "split")
    ]


def test_trim_keeps_the_first_thirty_seconds() -> None:
    """`trim` is what the script of the published benchmark does."""
    audio = noise(31)
    (part,) = split(audio, "trim")
    assert np.array_equal(part, audio[:WINDOW_SAMPLES])


def test_drop_drops_long_audio_only() -> None:
    """Audio of exactly 30 s is kept; with one more sample it is dropped."""
    audio = noise(31)
    assert split(audio[: WINDOW_SAMPLES + 1], "drop") == []
    assert len(split(audio[:WINDOW_SAMPLES], "drop")) == 1


@pytest.mark.parametrize("policy", ["split", "trim", "drop"])
def test_short_audio_is_one_window_untouched(policy: str) -> None:
    """Up to 30 s every policy returns the audio unchanged."""
    audio = noise(2)
    (part,) = split(audio, policy)
    assert part is audio


def test_an_unknown_policy_is_a_mistake() -> None:
    """An undefined policy is an error."""
    with pytest.raises(ValueError, match="pad"):
        split(noise(1), "pad")
