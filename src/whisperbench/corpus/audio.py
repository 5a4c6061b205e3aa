"""Decoding of one audio file to mono samples at 16 kHz, in float32 or in 16 bits.

libsndfile decodes WAV, FLAC, Ogg and MP3.  FFmpeg (through PyAV) decodes the other formats.  dr_flac (through
miniaudio) decodes FLAC files like LibriSpeech's, in a bit more than half of libsndfile's time.  A file that is shorter
than its header states is an error, because a part of an utterance would be scored against the whole transcript.
"""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
import numpy.typing as npt

from whisperbench.constants import WINDOW_SECONDS
from whisperbench.errors import AudioError
from whisperbench.files import open_regular

SAMPLE_RATE = 16_000
WINDOW_SAMPLES = WINDOW_SECONDS * SAMPLE_RATE

PAUSE_SECONDS = 0.5  # between joined recordings

READ_FRAMES = 1 << 24  # frames per read: a header that states terabytes allocates only 64 MiB
UNKNOWN_BYTES = 0x7FFF_0000  # a WAV that was written to a pipe states a size near 2 or 4 GiB
UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's SF_COUNT_MAX, for a FLAC that was written to a pipe
FLAC_MAGIC = b"fLaC"
ROUNDING_SECONDS = 0.25  # tolerance, because containers round their duration to codec frames

FETCH_AGAIN = "Fetch the file again, or leave it out of the corpus."

Samples = npt.NDArray[np.float32]
Samples16 = npt.NDArray[np.int16]
"""Samples in 16 bits; 32,768 corresponds to 1.0."""
AnySamples = npt.NDArray[np.float32 | np.int16]


class AudioSource(Protocol):
    """An audio file that is opened on demand: a `pathlib.Path`, or the bytes of a data set's row."""

    @property
    def name(self) -> str: ...

    def open(self, mode: Literal["rb"], /) -> BinaryIO: ...


@dataclasses.dataclass(frozen=True, slots=True)
class JoinedAudio:
    """Concatenated recordings, with PAUSE_SECONDS of silence between them."""

    parts: tuple[AudioSource, ...]

    @property
    def name(self) -> str:
        return f"{self.parts[0].name} to {self.parts[-1].name}"

    def open(self, _mode: Literal["rb"], /) -> BinaryIO:
        """The concatenated bytes of its files, which are not decodable; used to read the files into memory."""
        content = io.BytesIO()
        for part in self.parts:
            with part.open("rb") as file:
                content.write(file.read())
        content.seek(0)
        return content


def load_audio(source: AudioSource) -> Samples:
    """Mono samples at 16 kHz (the mean of the channels), shape (n,), n > 0, in [-1, 1] for integer formats.

    Raises:
        AudioError: the file is missing, truncated, empty, not audio, or has samples that are not finite.
    """
    if isinstance(source, JoinedAudio):
        pause = np.zeros(int(PAUSE_SECONDS * SAMPLE_RATE), np.float32)
        return np.concatenate([each for part in source.parts for each in (pause, load_audio(part))][1:])
    return _load(source, in_16_bits=False)


def load_audio_16(source: AudioSource) -> Samples16:
    """The result of `load_audio` in 16 bits, which is exact for mono files with 16 bits at 16 kHz, otherwise rounded.

    Raises:
        AudioError: as in `load_audio`.
    """
    samples = load_audio(source) if isinstance(source, JoinedAudio) else _load(source, in_16_bits=True)
    return to_16_bits(samples)


def to_16_bits(samples: AnySamples) -> Samples16:
    """Samples rounded to 16 bits and clipped at 1; the same array if they already have 16 bits."""
    if samples.dtype == np.float32:
        samples = np.clip(np.rint(samples * np.float32(32_768)), -32_768, 32_767)
    return samples.astype(np.int16, copy=False)


def _load(source: AudioSource, *, in_16_bits: bool) -> npt.NDArray[Any]:
    """Mono samples at 16 kHz in float32; with `in_16_bits`, in int16 if the file has this format."""
    where = str(source) if isinstance(source, Path) else source.name
    try:
        with open_regular(source) if isinstance(source, Path) else source.open("rb") as file:
            if not file.read(1):
                raise AudioError(f"{where} is an empty file. {FETCH_AGAIN}")
            file.seek(0)
            if in_16_bits and (plain := _plain_flac(file)) is not None:
                return plain
            file.seek(0)
            frames, rate = _decode(file, where, in_16_bits)
    except OSError as error:
        raise AudioError(
            f"{where} cannot be read: {error.strerror or error}. Check the path and its permissions."
        ) from error
    if frames.dtype != np.int16 and not np.isfinite(frames).all():
        raise AudioError(f"{where} has samples that are not finite numbers. {FETCH_AGAIN}")
    mono = frames if frames.ndim == 1 else frames.mean(axis=1)
    if rate != SAMPLE_RATE:
        mono = _resample(mono, rate, where)
    if not mono.size:
        raise AudioError(f"{where} has no samples. {FETCH_AGAIN}")
    return mono


def _plain_flac(file: BinaryIO) -> Samples16 | None:
    """All samples of a FLAC file with 16 bits, one channel and 16 kHz; None for any other format or a damaged file.

    STREAMINFO (RFC 9639, 8.2) starts with byte 8.  From byte 18 on it holds the sample rate (20 bits), channels - 1
    (3 bits), bits per sample - 1 (5 bits), and the number of samples (36 bits, 0: unknown).
    """
    if file.read(len(FLAC_MAGIC)) != FLAC_MAGIC:
        return None
    import miniaudio

    content = FLAC_MAGIC + file.read()
    stream_info = int.from_bytes(content[18:26], "big")
    count = stream_info & (1 << 36) - 1
    if stream_info >> 36 != SAMPLE_RATE << 8 | 15 or not 0 < count <= READ_FRAMES:
        return None
    try:
        samples = np.frombuffer(miniaudio.flac_read_s16(content).samples, np.int16)
    except miniaudio.DecodeError:
        return None
    return samples if len(samples) == count else None  # dr_flac skips blocks with a wrong checksum


def _decode(file: BinaryIO, where: str, in_16_bits: bool) -> tuple[npt.NDArray[Any], int]:
    """All frames of a file, shape (n,) or (n, channels), and its sample rate; data types as in `_load`."""
    import soundfile

    try:
        reader = soundfile.SoundFile(file)
    except soundfile.LibsndfileError as error:
        return _decode_with_ffmpeg(file, where, f"libsndfile: {error.error_string}")
    with reader:
        if reader.frames == UNKNOWN_FRAMES:
            return _decode_with_ffmpeg(file, where, "libsndfile: no length in the header")
        is_plain = (reader.subtype, reader.channels, reader.samplerate) == ("PCM_16", 1, SAMPLE_RATE)
        dtype = "int16" if in_16_bits and is_plain else "float32"
        try:
            blocks = [reader.read(min(READ_FRAMES, reader.frames), dtype=dtype)]
            while len(blocks[-1]) == READ_FRAMES:
                blocks.append(reader.read(READ_FRAMES, dtype=dtype))
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{where} is damaged or cut short: {error.error_string} {FETCH_AGAIN}") from error
        frames: npt.NDArray[Any] = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        rate = int(reader.samplerate)
        tolerance = 0 if reader.format != "MP3" else int(ROUNDING_SECONDS * rate)
        if len(frames) < reader.frames - tolerance:
            found = f"{len(frames)} of {reader.frames} samples"
            raise AudioError(f"{where} is cut short: it holds {found}. {FETCH_AGAIN}")
        if reader.format.startswith("WAV"):
            _refuse_cut_wav(reader.extra_info, where)
        return frames, rate


def _refuse_cut_wav(log: str, where: str) -> None:
    """Refuse a truncated WAV file, whose size in the header libsndfile corrects and only logs."""
    size = re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if size and int(size[2]) < int(size[1]) < UNKNOWN_BYTES:
        raise AudioError(f"{where} is cut short: it holds {size[2]} of {size[1]} bytes of audio. {FETCH_AGAIN}")


def _decode_with_ffmpeg(file: BinaryIO, where: str, why: str) -> tuple[Samples, int]:
    """Decode a format that libsndfile cannot read, for the reason `why`."""
    import av

    file.seek(0)
    try:
        with av.open(file, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise AudioError(f"{where} has no audio track. {FETCH_AGAIN}")
            stream = container.streams.audio[0]
            planes = av.AudioResampler(format="fltp")  # converts only the sample type
            decoded = [part for frame in container.decode(stream) for part in planes.resample(frame)]
            rate = int(stream.rate or 0)
            exact = "mp4" in container.format.name and stream.duration and stream.time_base  # else estimated
            stated = float(stream.duration * stream.time_base) if exact else 0.0
    except (av.FFmpegError, ValueError) as error:
        reasons = f"{why}; FFmpeg: {getattr(error, 'strerror', error)}"
        hint = f"Convert it to FLAC. {FETCH_AGAIN}"
        raise AudioError(f"{where} is not audio, or it is damaged ({reasons}). {hint}") from error
    if not decoded:
        raise AudioError(f"{where} has no samples. {FETCH_AGAIN}")
    frames = np.concatenate([part.to_ndarray() for part in decoded], axis=1).T
    if len(frames) / rate < stated - ROUNDING_SECONDS:
        found = f"{len(frames) / rate:.2f} of {stated:.2f} s"
        raise AudioError(f"{where} is cut short: it holds {found}. {FETCH_AGAIN}")
    return frames.astype(np.float32, copy=False), rate


def _resample(mono: Samples, rate: int, where: str) -> Samples:
    """`mono` at 16 kHz by soxr's HQ recipe, the default of `librosa.resample`."""
    import soxr

    try:
        resampled: Samples = soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")
    except (ValueError, RuntimeError) as error:
        raise AudioError(f"{where} has a sample rate of {rate} Hz, which cannot be converted: {error}.") from error
    return resampled
