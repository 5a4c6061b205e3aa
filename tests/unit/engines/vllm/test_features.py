"""Features are the extractor's own, to the last bit, at a fraction of the work."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisperbench.engines.vllm.features import FRAMES, SAMPLES, log_mel, log_mel_tensor

EDGES = (0, 1, 2, 100, 159, 160, 161, 199, 200, 201, 399, 400, 401, SAMPLES - 401, SAMPLES - 200, SAMPLES - 1, SAMPLES)


@functools.cache
def extractor(bins: int) -> Any:
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=bins)


def extracted(audio: npt.NDArray[np.float32], bins: int) -> npt.NDArray[np.float32]:
    batch = extractor(bins)(audio, sampling_rate=16_000, return_tensors="np")
    features: npt.NDArray[np.float32] = batch.input_features[0]
    return features


def assert_same(audio: npt.NDArray[np.float32], bins: int) -> None:
    import torch

    ours, theirs = torch.from_numpy(log_mel(audio, bins)), torch.from_numpy(extracted(audio, bins))
    assert ours.shape == (bins, FRAMES)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        assert torch.equal(ours.to(dtype), theirs.to(dtype)), f"{dtype}, {len(audio)} samples"


def noise(samples: int, seed: int, loudness: float = 0.1) -> npt.NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(samples) * loudness).astype(np.float32).clip(-1, 1)


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("samples", EDGES)
def test_edge_lengths(samples: int, bins: int) -> None:
    """Lengths around a hop, half a window, a window and 30 s are where padding could go wrong."""
    assert_same(noise(samples, seed=samples), bins)


@given(
    samples=st.integers(0, SAMPLES),
    bins=st.sampled_from([80, 128]),
    seed=st.integers(0, 2**32 - 1),
    exponent=st.floats(-7, 1),
    silent=st.sampled_from(["nothing", "start", "end", "all"]),
)
@settings(max_examples=60, deadline=None)
def test_any_audio(samples: int, bins: int, seed: int, exponent: float, silent: str) -> None:
    """Any length and loudness, clipped or barely there, with silence anywhere."""
    audio = noise(samples, seed, 10**exponent)
    half = samples // 2
    audio[{"nothing": slice(0), "start": slice(half), "end": slice(half, None), "all": slice(None)}[silent]] = 0
    assert_same(audio, bins)


def test_a_tone_and_a_click() -> None:
    """Energy in one bin or in one sample is no different."""
    time = np.arange(100_000, dtype=np.float32) / 16_000
    assert_same(np.sin(2 * np.pi * 440 * time).astype(np.float32), 128)
    click = np.zeros(50_000, dtype=np.float32)
    click[-1] = 1.0
    assert_same(click, 128)


def test_the_tensor_is_cast_to_the_models_dtype() -> None:
    """What the engine is fed is the float32 result, cast."""
    import torch

    audio = noise(37_000, seed=5)
    features = log_mel_tensor(audio, 80, torch.bfloat16)
    assert features.dtype == torch.bfloat16
    assert torch.equal(features, torch.from_numpy(log_mel(audio, 80)).to(torch.bfloat16))


def test_more_than_30_seconds_are_refused() -> None:
    """Audio is never cut silently."""
    with pytest.raises(ValueError, match="480001"):
        log_mel(np.zeros(SAMPLES + 1, dtype=np.float32))
