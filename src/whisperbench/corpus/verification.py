"""Checks, once per corpus, that an audio file holds exactly what its decoder returns.

A part of an utterance would be scored against the whole transcript.  Decoders stop without an error where a file was
cut, where its header states too little, or where another file was joined to it.
"""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from whisperbench.corpus.audio import (
    CONVERT,
    FETCH_AGAIN,
    LIBSNDFILE_FORMATS,
    MP4,
    AudioSource,
    Decoded,
    JoinedAudio,
    Samples,
    decode,
    decode_with_ffmpeg,
    load_audio,
    opened,
    packets,
    to_mono,
)
from whisperbench.errors import AudioError

WAV, AIFF, CAF = (12, "<4sI", 2), (12, ">4sI", 2), (8, ">4sq", 1)
CHUNKS = {b"RIFF": WAV, b"RF64": WAV, b"BW64": WAV, b"RIFX": AIFF, b"FORM": AIFF, b"caff": CAF}
"""Containers of chunks by their first bytes: offset of the first chunk, layout of a chunk's header, and alignment."""
AUDIO_CHUNKS = (b"data", b"SSND")
UNKNOWN_SIZES = (range(0x7FFF_0000, 0x8000_0001), range(0xFFFF_0000, 0x1_0000_0000), range(-1, 0))
"""Sizes that programs write into the header of a file before its length is known."""
END_TAG = re.compile(rb"\0+|TAG.{125}|.*?APETAGEX.{24}", re.DOTALL)  # zeros, ID3v1, and APE, which ends with its name
OGG_HEADER, END_OF_STREAM = 27, 4  # bytes before the sizes of a page's segments, and the flag of the last page
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
XING = re.compile(rb"(?:Xing|Info)\0\0\0[\1\3\5\7\x09\x0B\x0D\x0F](.{4})", re.DOTALL)
"""The number of frames of an MP3 file, which follows flags if the lowest of them is set."""

ROUNDING_SECONDS = 0.1  # compressed formats round their length to frames of the codec
MAX_PEAK = 2.0  # lossy codecs and filters exceed full scale a bit; samples in integer units exceed it by far
MIN_PEAK = 0.5 / 32_768  # a smaller sample is zero in 16 bits
CANCELLED = 0.01  # the mean of channels in opposite phase is at least 40 dB below them


def verified_audio(source: AudioSource) -> tuple[Samples, bool]:
    """The result of `load_audio` for a file that is complete, and whether it is silent.

    It is silent if the mean of the channels is zero, or nearly zero because channels in opposite phase cancel out.

    Raises:
        AudioError: as in `load_audio`; or the file holds more or less than is decoded, or float samples beyond ±1.
    """
    if isinstance(source, JoinedAudio):  # its parts were verified
        samples = load_audio(source)
        return samples, _peak(samples) < MIN_PEAK
    with opened(source) as (file, where):
        decoded = decode(file, where)
        _require_whole(file, where, decoded)
        samples, peak = to_mono(decoded, where), _peak(decoded.frames)
    if peak > MAX_PEAK:
        raise AudioError(
            f"{where} has samples up to ±{peak:,.1f}, but the samples of a float format are within ±1. Write the file "
            "again with samples that are divided by the largest integer of their original format."
        )
    return samples, _peak(samples) < max(MIN_PEAK, CANCELLED * peak)


def _peak(samples: Samples) -> float:
    return float(max(samples.max(), -samples.min())) if samples.size else 0.0


def _require_whole(file: BinaryIO, where: str, decoded: Decoded) -> None:
    """Require that a file ends where its container ends, and is as long as its header states."""
    file.seek(0)
    kind, stated = file.read(4), decoded.stated_seconds
    if decoded.format == "mp3":
        _require_whole_mp3(file, where, decoded)
    elif decoded.format.lower() == "ogg":
        _require_whole_ogg(file, where)
    elif kind in CHUNKS:
        _require_whole_chunks(file, where, kind)
    elif decoded.format == "W64":
        file.seek(16)
        _require_end(file, where, int.from_bytes(file.read(8), "little"))
    elif decoded.format == MP4:
        _require_whole_mp4(file, where)
    elif decoded.format in LIBSNDFILE_FORMATS:
        _require_same_length(file, where, decoded)
    elif decoded.format == "matroska,webm" and stated is None:
        raise AudioError(f"{where} does not state its length, so it may be cut short. {CONVERT}")
    if stated and stated > decoded.seconds + ROUNDING_SECONDS:
        lengths = f"its header states {stated:.4g} s, and {decoded.seconds:.4g} s are read"
        raise AudioError(f"{where} is cut short: {lengths}. {FETCH_AGAIN}")


def _require_end(file: BinaryIO, where: str, end: int) -> None:
    """Require that a file has at least `end` bytes, and only zeros and tags after them."""
    size = file.seek(0, os.SEEK_END)
    if end > size:
        raise AudioError(f"{where} is cut short: it has {size:,} of {end:,} bytes. {FETCH_AGAIN}")
    file.seek(end)
    rest = file.read()
    while rest:
        if rest.startswith(b"ID3"):  # its size has 7 bits in each byte
            length = 10 + sum(byte << shift for byte, shift in zip(rest[6:10], (21, 14, 7, 0), strict=False))
        elif tag := END_TAG.match(rest):
            length = tag.end()
        else:
            raise AudioError(
                f"{where} has {size:,} bytes, but according to its header its content ends after {end:,} bytes. The "
                "file was joined to another one, a recorder was interrupted, or the header is wrong. Correct it, or "
                "leave the file out."
            )
        rest = rest[length:]


def _require_whole_chunks(file: BinaryIO, where: str, kind: bytes) -> None:
    """Require that the chunk with the audio is complete, and that only chunks of metadata and tags follow it."""
    size, (first, layout, alignment), size_in_ds64 = file.seek(0, os.SEEK_END), CHUNKS[kind], None
    for name, start, length in _chunks(file, first, layout, alignment):
        if name == b"ds64":  # of RF64, where the chunk with the audio states 0xFFFFFFFF
            size_in_ds64 = int.from_bytes(file.read(16)[8:], "little")
        if name in AUDIO_CHUNKS:
            end = start + length
            if any(length in sizes for sizes in UNKNOWN_SIZES):
                end = size if size_in_ds64 is None else start + size_in_ds64
            break
    else:
        raise AudioError(f"{where} is cut short, because it has no chunk with audio. {FETCH_AGAIN}")
    for name, start, length in _chunks(file, end + end % alignment, layout, alignment):
        if name in (*CHUNKS, *AUDIO_CHUNKS) or not 0 <= length <= size - start:
            break
        end = start + length
    _require_end(file, where, end)


def _chunks(file: BinaryIO, start: int, layout: str, alignment: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, offset and size of the content of each chunk from `start` on, up to the first bytes that are no chunk."""
    header = struct.calcsize(layout)
    file.seek(start)
    while len(head := file.read(header)) == header:
        name, length = struct.unpack(layout, head)
        if not _is_name(name):
            return
        start += header
        yield name, start, length
        start += max(0, length)
        start += start % alignment
        file.seek(start)


def _require_whole_mp4(file: BinaryIO, where: str) -> None:
    """Require that the boxes of an MP4 file are complete, and are those of one file."""
    size, end, names = file.seek(0, os.SEEK_END), 0, list[bytes]()
    while end + 8 <= size:
        file.seek(end)
        length, name = struct.unpack(">I4s", file.read(8))
        if not _is_name(name):
            break
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        end += max(8, length or size - end)
        names.append(name)
    if max(names.count(b"ftyp"), names.count(b"moov")) > 1:
        raise AudioError(f"{where} consists of several joined files, of which only the first is read. {CONVERT}")
    _require_end(file, where, end)


def _is_name(name: bytes) -> bool:
    return name.isascii() and name.decode().isprintable()


def _require_same_length(file: BinaryIO, where: str, decoded: Decoded) -> None:
    """Compare the length with that in the header and with that which a second decoder finds."""
    second = decode_with_ffmpeg(file, where)
    stated = second.seconds if second.stated_seconds is None else second.stated_seconds
    if any(abs(each - decoded.seconds) > 0.5 / decoded.rate for each in (stated, second.seconds)):
        raise AudioError(
            f"{where} is cut short, consists of joined files, or has a wrong header: {decoded.seconds:.4g} s are read, "
            f"its header states {stated:.4g} s, and a second decoder reads {second.seconds:.4g} s. {CONVERT}"
        )


def _require_whole_ogg(file: BinaryIO, where: str) -> None:
    """Require that an Ogg file has all pages of one stream with correct checksums (RFC 3533, 6) up to the last one.

    Decoders leave out damaged pages and the streams after the first one.
    """
    file.seek(0)
    number, is_last = 0, False
    while not is_last:
        header = file.read(OGG_HEADER)
        if len(header) < OGG_HEADER or not header.startswith(b"OggS"):
            raise AudioError(f"{where} is cut short: its last page is missing. {FETCH_AGAIN}")
        sizes = file.read(header[26])
        page = header[:22] + bytes(4) + header[26:] + sizes + file.read(sum(sizes))
        # zlib's CRC has the same polynomial, but the order of its bits is reversed.
        reversed_crc = zlib.crc32(page.translate(REVERSED_BITS), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
        if int(f"{reversed_crc:032b}"[::-1], 2) != int.from_bytes(header[22:26], "little"):
            raise AudioError(f"{where} is damaged or cut short: page {number} has a wrong checksum. {FETCH_AGAIN}")
        if int.from_bytes(header[18:22], "little") != number:
            raise AudioError(f"{where} is damaged or has several tracks: page {number} is missing. {FETCH_AGAIN}")
        number, is_last = number + 1, bool(header[5] & END_OF_STREAM)
    _require_end(file, where, file.tell())


def _require_whole_mp3(file: BinaryIO, where: str, decoded: Decoded) -> None:
    """Compare the number of frames with that in the Xing header, and the samples with those that dr_mp3 finds.

    dr_mp3 (through miniaudio) leaves out an incomplete frame, and stops where the Xing header ends.
    """
    import av
    import miniaudio

    file.seek(0)
    with av.open(file, metadata_errors="replace") as container:
        frames = [(each.pos or 0, each.size) for each in packets(container) if each.size]
    first, end = frames[0][0], sum(frames[-1])
    _require_end(file, where, end)
    file.seek(0)
    content, size = file.read(end), file.seek(0, os.SEEK_END)
    if size > end:  # with tags at the end, FFmpeg keeps the encoder's padding
        decoded = decode_with_ffmpeg(io.BytesIO(content), where)
    try:
        second = miniaudio.mp3_read_s16(content).num_frames
    except miniaudio.DecodeError as error:
        raise AudioError(f"{where} is damaged: {error}. {FETCH_AGAIN}") from error
    xing = XING.search(content, 0, first)
    if xing and len(frames) < (stated := int.from_bytes(xing[1], "big")):
        raise AudioError(f"{where} is cut short: it holds {len(frames)} of {stated} frames. {FETCH_AGAIN}")
    if second < len(decoded.frames):
        lengths = f"FFmpeg reads {decoded.seconds:.4g} s and dr_mp3 {second / decoded.rate:.4g} s"
        raise AudioError(f"{where} is cut short, or consists of several joined files: {lengths}. {CONVERT}")
