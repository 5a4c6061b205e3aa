"""Exact log-mel features, computed only for the frames that hold audio.

Whisper's encoder takes 30 s, which is 3,000 frames of 10 ms.  An utterance of LibriSpeech has 7 s on average, so three
quarters of a window are padding.  A frame without audio has power 0 in every bin, which the clamp turns into a
constant, so only the other frames need the Fourier transform.  The operations and their order are those of
`transformers.WhisperFeatureExtractor`; the result is equal to the last bit.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from whisperbench.corpus.audio import AnySamples, Samples16, to_16_bits

if TYPE_CHECKING:
    import torch

SAMPLE_RATE = 16_000
N_FFT = 400  # samples under one Hann window: 25 ms
HOP = 160  # samples between two frames: 10 ms
FRAMES = 3_000
SAMPLES = FRAMES * HOP  # 30 s
FRAME_MULTIPLE = 16
"""Frames are computed in multiples of this: the matrix product then runs in the same kernel for
every length, which keeps its sums in the same order as for 3,000 frames."""

FRAMES_BETWEEN = 2  # frames of a packed signal whose transform covers samples of two windows
ROWS_MULTIPLE = 4_096
"""Frames of a packed batch are computed in multiples of this, so that few lengths occur and cuFFT reuses its plans."""


def log_mel(audio: npt.NDArray[np.float32], mel_bins: int = 128) -> npt.NDArray[np.float32]:
    """Log-mel features of one window.

    Args:
        audio: samples at 16 kHz in [-1, 1], shape (n,), 0 <= n <= 480,000.
        mel_bins: 80 (up to large-v2) or 128 (large-v3 and later).

    Returns:
        float32 array of shape (mel_bins, 3000), equal to `WhisperFeatureExtractor`'s.

    Raises:
        ValueError: more than 30 s of audio, or more than one dimension.
    """
    import torch

    features: npt.NDArray[np.float32] = log_mel_tensor(audio, mel_bins, torch.float32).numpy()
    return features


def log_mel_tensor(audio: npt.NDArray[np.float32], mel_bins: int, dtype: torch.dtype) -> torch.Tensor:
    """`log_mel` as a tensor in the model's dtype, the input of the engine."""
    import torch

    if audio.ndim != 1 or audio.size > SAMPLES:
        raise ValueError(f"expected at most {SAMPLES} samples in one dimension, got shape {audio.shape}")
    touched = min(FRAMES, -(-(audio.size + N_FFT // 2) // HOP)) if audio.size else 0
    frames = min(FRAMES, -(-touched // FRAME_MULTIPLE) * FRAME_MULTIPLE)
    silence = torch.tensor(1e-10).log10()
    if not frames:
        return torch.full((mel_bins, FRAMES), float((silence + 4.0) / 4.0), dtype=dtype)

    # After the audio the transform needs zeros, as in the padded window, and at 30 s the reflected end.
    waveform = torch.zeros(1, min(SAMPLES, frames * HOP + N_FFT))
    waveform[0, : audio.size] = torch.from_numpy(audio)
    spectrum = torch.stft(waveform, N_FFT, HOP, window=_hann(), return_complex=True)[..., :frames]
    power = (spectrum.abs() ** 2).contiguous()
    log_spec = torch.clamp(_mel_filters(mel_bins).T @ power, min=1e-10).log10()[0]

    peak = log_spec.max()
    floor = torch.maximum(peak, silence) - 8.0 if frames < FRAMES else peak - 8.0
    features = torch.empty((mel_bins, FRAMES), dtype=dtype)
    features[:, :frames] = (torch.maximum(log_spec, floor) + 4.0) / 4.0
    features[:, frames:] = (torch.maximum(silence, floor) + 4.0) / 4.0
    return features


def packed_window(audio: AnySamples, frames: int) -> Samples16:
    """The samples of a window's first `frames` frames, in the layout that `packed_log_mel` concatenates.

    Args:
        audio: samples at 16 kHz, in 16 bits or in [-1, 1], shape (n,), 0 <= n <= 480,000.
        frames: number of frames, at most 3,000.

    Returns:
        int16 of shape (HOP * (frames + FRAMES_BETWEEN),): the reflected beginning for the transform's first frames, the
        audio, zeros, and the reflected end if the window is full.
    """
    half = N_FFT // 2
    window = np.zeros(HOP * (frames + FRAMES_BETWEEN), np.int16)
    samples = to_16_bits(audio)
    room = window[half:]
    room[: samples.size] = samples[: room.size]
    window[:half] = room[1 : half + 1][::-1]
    if frames == FRAMES:
        end = half + SAMPLES
        window[end:] = window[end - 1 - (window.size - end) : end - 1][::-1]
    return window


def packed_log_mel(windows: Sequence[torch.Tensor], mel_bins: int, device: torch.device) -> torch.Tensor:
    """Log-mel features of a batch of windows, computed on `device` in float32.

    Args:
        windows: results of `packed_window`, as int16 tensors of any lengths.
        mel_bins: 80 or 128.

    Returns:
        float32 of shape (rows, mel_bins): the frames of all windows in order, each window followed by FRAMES_BETWEEN
        rows without meaning.
    """
    import torch

    rows = [window.numel() // HOP for window in windows]
    total = sum(rows)
    signal = torch.zeros(HOP * (-(-total // ROWS_MULTIPLE) * ROWS_MULTIPLE) + N_FFT - HOP, device=device)
    signal[: HOP * total] = to_device_async(windows, device)
    hann, filters = _on(device, mel_bins)
    spectrum = torch.stft(signal / 32_768.0, N_FFT, HOP, window=hann, center=False, return_complex=True)[:, :total]
    power = spectrum.real.square() + spectrum.imag.square()
    log_spec = torch.clamp(filters.T @ power, min=1e-10).log10()

    lengths = to_device_async([torch.tensor(rows)], device)
    window_of_row = torch.repeat_interleave(lengths, output_size=total)
    between = (lengths.cumsum(0)[:, None] - 1 - torch.arange(FRAMES_BETWEEN, device=device)).flatten()
    loudest = log_spec.amax(0).index_fill(0, between, -torch.inf)
    peak = torch.full((len(rows),), -torch.inf, device=device).scatter_reduce(0, window_of_row, loudest, "amax")
    return ((torch.maximum(log_spec, peak[window_of_row] - 8.0) + 4.0) / 4.0).T


def to_device_async(parts: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Concatenate host tensors of one type and copy them to a device without waiting for its pending work.

    CUDA copies from pageable memory only after all earlier work on the stream.  An engine that prepares the next step
    while the GPU computes would leave it idle after every batch of windows, so the copy is made from pinned memory.
    """
    import torch

    if device.type != "cuda":
        return torch.cat(list(parts)).to(device)
    pinned = torch.empty(sum(part.numel() for part in parts), dtype=parts[0].dtype, pin_memory=True)
    return torch.cat(list(parts), out=pinned).to(device, non_blocking=True)


@functools.cache
def _on(device: torch.device, mel_bins: int) -> tuple[torch.Tensor, torch.Tensor]:
    return _hann().to(device), _mel_filters(mel_bins).to(device)


@functools.cache
def _hann() -> torch.Tensor:
    import torch

    return torch.hann_window(N_FFT)


@functools.cache
def _mel_filters(mel_bins: int) -> torch.Tensor:
    """Slaney's mel filter bank, shape (201, mel_bins), as the feature extractor builds it."""
    import torch
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequency_bins=1 + N_FFT // 2,
        num_mel_filters=mel_bins,
        min_frequency=0.0,
        max_frequency=SAMPLE_RATE / 2,
        sampling_rate=SAMPLE_RATE,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.from_numpy(filters).to(torch.float32)
