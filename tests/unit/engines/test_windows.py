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


@pytest.mark.parametrize("pause", [20.5, 24.0, 29.6])
def test_split_cuts_in_the_pause(pause: float) -> None:
    """The cut lies inside a pause of 0.3 s in the last 10 s of the window, in 16 bits at the same sample."""
    audio = noise(40)
    audio[round(pause * SAMPLE_RATE) : round((pause + 0.3) * SAMPLE_RATE)] *= 0.01
    first, second = split(audio, "split")
    assert pause < first.size / SAMPLE_RATE < pause + 0.3
    assert first.size + second.size == audio.size
    in_16_bits = to_16_bits(audio)
    assert split(in_16_bits, "split")[0].size == split(in_16_bits / np.float32(32_768), "split")[0].size


def test_long_audio_is_trimmed_or_dropped() -> None:
    """`trim` keeps the first 30 s, as the script of the published benchmark does; one sample more is long."""
    audio = noise(31)
    (part,) = split(audio, "trim")
    assert np.array_equal(part, audio[:WINDOW_SAMPLES])
    assert split(audio[: WINDOW_SAMPLES + 1], "drop") == []


@pytest.mark.parametrize("policy", ["split", "trim", "drop"])
@pytest.mark.parametrize("seconds", [2, 30])
def test_short_audio_is_one_window_untouched(seconds: float, policy: str) -> None:
    """Up to 30 s every policy returns the audio unchanged."""
    audio = noise(seconds)
    (part,) = split(audio, policy)
    assert part is audio
