"""Decoding of one audio file to mono samples at 16 kHz, in float32 or in 16 bits.

libsndfile decodes PCM, FLAC and Ogg.  FFmpeg (through PyAV) decodes MP3 and the other formats.  dr_flac (through
miniaudio) decodes FLAC files like LibriSpeech's, in a bit more than half of libsndfile's time.  Whether a file holds
more or less than what is decoded here is checked once per corpus, in `verification`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from whisperbench.constants import WINDOW_SECONDS
from whisperbench.errors import AudioError
from whisperbench.files import open_regular

if TYPE_CHECKING:
    from av import AudioStream, Packet
    from av.container import InputContainer

SAMPLE_RATE = 16_000
WINDOW_SAMPLES = WINDOW_SECONDS * SAMPLE_RATE

PAUSE_SECONDS = 0.5  # between joined recordings

MAX_SAMPLES = 1 << 30  # of all channels in one file: 18 hours of mono at 16 kHz, 4 GiB in float32
MAX_BYTES = 8 << 30  # of one file
UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's SF_COUNT_MAX, for a FLAC that was written to a pipe

LIBSNDFILE_FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "FLAC", "OGG", "AU", "NIST")
ESTIMATED_LENGTHS = ("mp3", "aac", "amr")
"""FFmpeg's formats whose files consist of frames only, so that FFmpeg estimates their length from the bit rate."""
MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
FFMPEG_FORMATS = (
    *("wav", "w64", "aiff", "caf", "flac", "ogg", "au", "nistsphere", MP4, "matroska,webm"),
    *ESTIMATED_LENGTHS,
)
"""Formats whose completeness `verification` can check."""

FETCH_AGAIN = "Fetch the file again, or leave it out of the corpus."
CONVERT = "Convert it to FLAC."
SPLIT_IT = "Split it into shorter recordings."

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


@dataclasses.dataclass(frozen=True, slots=True)
class Decoded:
    """All frames of a file as it holds them, shape (n,) or (n, channels), in float32 or int16.

    `format` is the name that the decoder gives to the container.  `stated_seconds` is the length in the header, which
    FFmpeg reports for most containers; None if it is unknown or only estimated.
    """

    frames: npt.NDArray[Any]
    rate: int
    format: str
    stated_seconds: float | None = None

    @property
    def seconds(self) -> float:
        return len(self.frames) / self.rate


def load_audio(source: AudioSource) -> Samples:
    """Mono samples at 16 kHz (the mean of the channels), shape (n,), n > 0, in [-1, 1] for integer formats.

    The file must have been checked before (`verification.verified_audio`), because some damage is found only there.

    Raises:
        AudioError: the file is missing, damaged, empty, too long, not audio, or has samples that are not finite.
    """
    if isinstance(source, JoinedAudio):
        pause = np.zeros(int(PAUSE_SECONDS * SAMPLE_RATE), np.float32)
        return np.concatenate([each for part in source.parts for each in (pause, load_audio(part))][1:])
    with opened(source) as (file, where):
        return to_mono(decode(file, where), where)


def load_audio_16(source: AudioSource) -> Samples16:
    """The result of `load_audio` in 16 bits, which is exact for mono files with 16 bits at 16 kHz, otherwise rounded.

    Raises:
        AudioError: as in `load_audio`.
    """
    if isinstance(source, JoinedAudio):
        return to_16_bits(load_audio(source))
    with opened(source) as (file, where):
        if (plain := _plain_flac(file)) is not None:
            return plain
        return to_16_bits(to_mono(decode(file, where, in_16_bits=True), where))


def to_16_bits(samples: AnySamples) -> Samples16:
    """Samples rounded to 16 bits and clipped at 1; the same array if they already have 16 bits."""
    if samples.dtype == np.float32:
        samples = np.clip(np.rint(samples * np.float32(32_768)), -32_768, 32_767)
    return samples.astype(np.int16, copy=False)


@contextlib.contextmanager
def opened(source: AudioSource) -> Iterator[tuple[BinaryIO, str]]:
    """The open file of a source, which is not empty and not too large, and its name for messages.

    Raises:
        AudioError: the file cannot be opened or read.
    """
    where = str(source) if isinstance(source, Path) else source.name
    try:
        # Without a buffer, because libsndfile reads a file by its descriptor.
        unbuffered = cast("BinaryIO", open_regular(source).detach()) if isinstance(source, Path) else None
        with unbuffered or source.open("rb") as file:
            if not (size := file.seek(0, os.SEEK_END)):
                raise AudioError(f"{where} is an empty file. {FETCH_AGAIN}")
            if size > MAX_BYTES:
                raise AudioError(f"{where} has {size:,} bytes, more than the limit of {MAX_BYTES:,}. {SPLIT_IT}")
            yield file, where
    except OSError as error:
        raise AudioError(
            f"{where} cannot be read: {error.strerror or error}. Check the path and its permissions."
        ) from error


def to_mono(decoded: Decoded, where: str) -> npt.NDArray[Any]:
    """The mean of the channels at 16 kHz, in float32; in int16 if the frames have this type."""
    frames, rate = decoded.frames, decoded.rate
    if frames.dtype != np.int16 and not np.isfinite(frames).all():
        raise AudioError(f"{where} has samples that are not finite numbers. {FETCH_AGAIN}")
    mono = frames if frames.ndim == 1 else frames.mean(axis=1)
    if rate != SAMPLE_RATE:
        import soxr

        try:
            mono = soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")  # as librosa.resample does by default
        except (ValueError, RuntimeError) as error:
            message = f"{where} has a sample rate of {rate} Hz, which cannot be converted: {error}."
            raise AudioError(message) from error
    if not mono.size:
        raise AudioError(f"{where} has no samples. {FETCH_AGAIN}")
    return mono


def _plain_flac(file: BinaryIO) -> Samples16 | None:
    """All samples of a FLAC file with 16 bits, one channel and 16 kHz; None for any other format or a damaged file.

    STREAMINFO (RFC 9639, 8.2) starts with byte 8.  From byte 18 on it holds the sample rate (20 bits), channels - 1
    (3 bits), bits per sample - 1 (5 bits), and the number of samples (36 bits, 0: unknown).
    """
    file.seek(0)
    head = file.read(26)
    stream_info = int.from_bytes(head[18:26], "big")
    count = stream_info & (1 << 36) - 1
    if not head.startswith(b"fLaC") or stream_info >> 36 != SAMPLE_RATE << 8 | 15 or not 0 < count <= MAX_SAMPLES:
        return None
    import miniaudio

    try:
        samples = np.frombuffer(miniaudio.flac_read_s16(head + file.read()).samples, np.int16)
    except miniaudio.DecodeError:
        return None
    return samples if len(samples) == count else None  # dr_flac skips blocks with a wrong checksum


def decode(file: BinaryIO, where: str, *, in_16_bits: bool = False) -> Decoded:
    """Decode a file by libsndfile, or by FFmpeg if libsndfile cannot read all of it.

    With `in_16_bits`, mono PCM with 16 bits at 16 kHz is not converted to float32.

    Raises:
        AudioError: the file is not audio, is damaged, or is too long.
    """
    import soundfile

    file.seek(0)
    head = file.read(3)
    if head == b"ID3" or (head[0] == 0xFF and head[1:] > b"\xe0"):  # MP3: libsndfile stops at wrong or missing indexes
        return decode_with_ffmpeg(file, where)
    file.seek(0)
    try:
        reader = soundfile.SoundFile(file.fileno() if isinstance(file, io.FileIO) else file, closefd=False)
    except soundfile.LibsndfileError as error:
        return decode_with_ffmpeg(file, where, f"libsndfile: {error.error_string}; ")
    with reader:
        if reader.format == "MP3" or reader.frames == UNKNOWN_FRAMES:
            return decode_with_ffmpeg(file, where)
        if reader.format not in LIBSNDFILE_FORMATS:
            raise AudioError(f"{where} has the format {reader.format}, which is not supported. {CONVERT}")
        _require_limit(reader.frames * reader.channels, reader.samplerate * reader.channels, where)
        is_plain = (reader.subtype, reader.channels, reader.samplerate) == ("PCM_16", 1, SAMPLE_RATE)
        dtype = "int16" if in_16_bits and is_plain else "float32"
        try:
            frames = reader.read(reader.frames, dtype=dtype)  # without the number, GSM 6.10 is refused
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{where} is damaged or cut short: {error.error_string} {FETCH_AGAIN}") from error
        if len(frames) < reader.frames:
            found = f"{len(frames)} of {reader.frames} samples"
            raise AudioError(f"{where} is cut short: it holds {found}. {FETCH_AGAIN}")
        return Decoded(frames, int(reader.samplerate), reader.format)


def decode_with_ffmpeg(file: BinaryIO, where: str, why: str = "") -> Decoded:
    """Decode the only audio track of a file by FFmpeg; `why` is the reason why libsndfile cannot.

    Raises:
        AudioError: as in `decode`, and for a file with several tracks or one that changes its rate or channels.
    """
    import av

    file.seek(0)
    try:
        with av.open(file, metadata_errors="replace") as container:
            tracks, name = container.streams.audio, container.format.name
            if len(tracks) != 1:
                raise AudioError(f"{where} has {len(tracks)} audio tracks, expected one. {CONVERT}")
            if name not in FFMPEG_FORMATS:
                raise AudioError(f"{where} has the format {name}, which is not supported. {CONVERT}")
            interleaved = av.AudioResampler(format="flt")  # to float32; PyAV crashes if a frame has 8 planes
            blocks, samples, first = [], 0, None
            for frame in itertools.chain.from_iterable(packet.decode() for packet in packets(container)):
                setting = rate, channels = frame.sample_rate, frame.layout.nb_channels
                if (first := first or setting) != setting:
                    changes = "from {} Hz with {} channels to {} Hz with {} channels".format(*first, *setting)
                    raise AudioError(f"{where} changes {changes}. {CONVERT}")
                samples += frame.samples * channels
                _require_limit(samples, rate * channels, where)
                if channels == 1 and frame.format.name in ("flt", "fltp"):  # saves half of the time
                    blocks.append(np.frombuffer(frame.planes[0], np.float32, frame.samples))
                else:
                    blocks += [part.to_ndarray()[0] for part in interleaved.resample(frame)]
            stated = (container.duration or 0) / av.time_base
            if tracks[0].duration and tracks[0].time_base:
                stated = float(tracks[0].duration * tracks[0].time_base)
    except (av.FFmpegError, ValueError) as error:
        reasons = f"{why}FFmpeg: {getattr(error, 'strerror', error)}"
        raise AudioError(f"{where} is not audio, or it is damaged ({reasons}). {CONVERT} {FETCH_AGAIN}") from error
    if not blocks:
        raise AudioError(f"{where} has no samples. {FETCH_AGAIN}")
    frames = np.concatenate(blocks).reshape(-1, channels)
    return Decoded(frames, rate, name, None if name in ESTIMATED_LENGTHS else stated or None)


def packets(container: InputContainer) -> Iterator[Packet[AudioStream]]:
    """The packets of the first audio track; of an MP3 file only those before a tag at its end."""
    for packet in container.demux(container.streams.audio[0]):
        if container.format.name == "mp3" and packet.size and bytes(packet)[0] != 0xFF:  # not a frame
            return
        yield packet


def _require_limit(samples: int, samples_per_second: int, where: str) -> None:
    """Refuse a file that would take more than 4 GiB in float32, or as much after it is resampled to 16 kHz."""
    if samples > MAX_SAMPLES or samples * SAMPLE_RATE > MAX_SAMPLES * samples_per_second:
        hours = samples / samples_per_second / 3600
        raise AudioError(f"{where} lasts {hours:,.1f} hours or more, which would not fit into memory. {SPLIT_IT}")
