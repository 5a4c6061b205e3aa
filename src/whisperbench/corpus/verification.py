"""Checks, once per corpus, that an audio file holds exactly what its decoder returns.

A part of an utterance would be scored against the whole transcript.  Decoders stop without an error where a file was
cut, where its header states too little, or where another file was joined to it.  A file that consists of chunks is
compared with the sizes in their headers, and any other file is decoded a second time by another library.
"""

from __future__ import annotations

import io
import os
import struct
from typing import BinaryIO

from whisperbench.corpus.audio import (
    CONVERT,
    FETCH_AGAIN,
    LIBSNDFILE_FORMATS,
    AudioSource,
    Decoded,
    JoinedAudio,
    Samples,
    decode,
    decode_with_ffmpeg,
    is_no_mp3_frame,
    is_padding,
    load_audio,
    opened,
    to_mono,
)
from whisperbench.errors import AudioError

RIFF, AIFF, CAF, W64, MP4 = (12, "<4sI", 2), (12, ">4sI", 2), (8, ">4sq", 1), (40, "<16sQ", 8), (0, ">I4s", 1)
LAYOUTS = {b"RIFF": RIFF, b"RF64": RIFF, b"BW64": RIFF, b"RIFX": AIFF, b"FORM": AIFF, b"caff": CAF, b"riff": W64}
"""Containers of chunks: offset of the first chunk, format of a chunk's header, and alignment of chunks.

In W64 and MP4 the size of a chunk includes its header."""
MP4_CHUNKS = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
AUDIO_CHUNKS = (b"data", b"SSND", b"mdat")
UNIQUE_CHUNKS = (*LAYOUTS, b"ftyp", b"moov", b"data", b"SSND")
PIPE_SIZES = (range(0x7FFF_0000, 0x8000_0001), range(0xFFFF_0000, 0x1_0000_0000), range(-1, 0))
"""Sizes that programs write into the header of a file before its length is known."""
MAX_PADDING, MAX_TAGS = 4096, 1 << 24  # bytes at the end of a file, of zeros only and with tags
MAX_OGG_PAGE, END_OF_STREAM = 65_307, 4  # size of a page and flag of the last one (RFC 3533, 6)
MAX_MP3_FRAME = 2881  # bytes of the largest frame, 320 kbit/s at 16 kHz

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
        in_chunks = _require_whole_chunks(file, where)
        decoded = decode(file, where)
        if decoded.format == "mp3":
            _require_whole_mp3(file, where, decoded)
        elif not in_chunks or decoded.stated_seconds:
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


def _require_whole_chunks(file: BinaryIO, where: str) -> bool:
    """Compare the sizes of all chunks with the size of the file; false for a container without chunks."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(8)
    is_mp4 = head[4:] in MP4_CHUNKS
    if not (found := MP4 if is_mp4 else LAYOUTS.get(head[:4])):
        return False
    position, layout, alignment = found
    header, seen = struct.calcsize(layout), set() if is_mp4 else {head[:4]}
    size_in_ds64: int | None = None  # of the audio in RF64, where the chunk itself states 0xFFFFFFFF
    while position + header <= size:
        file.seek(position)
        fields, start = struct.unpack(layout, file.read(header)), position + header
        name, length = (fields[1], fields[0]) if is_mp4 else (fields[0][:4], fields[1])
        if not all(0x20 <= byte < 0x7F for byte in name):
            break  # not a chunk
        if name in UNIQUE_CHUNKS and name in seen:
            raise AudioError(f"{where} consists of several joined files, of which only the first is read. {CONVERT}")
        seen.add(name)
        if name == b"ds64":
            size_in_ds64 = int.from_bytes(file.read(16)[8:], "little")
        if is_mp4 and length == 1:
            length, start = int.from_bytes(file.read(8), "big"), start + 8
        if name in AUDIO_CHUNKS and any(length in sizes for sizes in PIPE_SIZES):
            length = size - start if size_in_ds64 is None else size_in_ds64
        elif is_mp4:
            length = max(0, length - (start - position)) if length else size - start
        elif layout == W64[1]:
            length = max(0, length - header)
        if not 0 <= length <= size - start:
            if name not in AUDIO_CHUNKS and not seen.isdisjoint(AUDIO_CHUNKS) and not is_mp4:
                break
            found_bytes = f"{max(0, size - start):,} of {length:,} bytes of its chunk {name.decode()!r}"
            raise AudioError(f"{where} is cut short: it holds {found_bytes}. {FETCH_AGAIN}")
        position = -(-(start + length) // alignment) * alignment
    file.seek(min(position, size))
    rest = file.read(MAX_TAGS)
    if not is_padding(rest) or (len(rest) > MAX_PADDING and not rest.strip(b"\0")):
        raise AudioError(
            f"{where} has {size:,} bytes, but according to its header its content ends after {position:,} bytes. The "
            "file was cut, a recorder was interrupted, or the header is wrong. Correct it, or leave the file out."
        )
    return True


def _require_whole(file: BinaryIO, where: str, decoded: Decoded) -> None:
    """Compare the length of a file with its header, and with the length that a second decoder finds."""
    by_ffmpeg = decoded.format not in LIBSNDFILE_FORMATS
    second = decoded if by_ffmpeg else decode_with_ffmpeg(file, where)
    stated, is_ogg = second.stated_seconds, decoded.format.lower() == "ogg"
    if stated is None and decoded.format == "matroska,webm":
        raise AudioError(f"{where} does not state its length, so it may be cut short. {CONVERT}")
    tolerance = ROUNDING_SECONDS if by_ffmpeg or is_ogg else 0.5 / decoded.rate
    others = (second.seconds, second.seconds if stated is None else stated)
    longest, shortest = decoded.seconds + tolerance, 0.0 if by_ffmpeg else decoded.seconds - tolerance
    if not shortest <= min(others) <= max(others) <= longest:
        lengths = f"{decoded.seconds:.4g} s are read, its header states {others[1]:.4g} s"
        lengths += "" if by_ffmpeg else f", and a second decoder reads {second.seconds:.4g} s"
        raise AudioError(f"{where} is cut short, consists of joined files, or has a wrong header: {lengths}. {CONVERT}")
    if is_ogg:
        _require_last_page(file, where)


def _require_last_page(file: BinaryIO, where: str) -> None:
    """Require that an Ogg file ends with a complete page that is marked as the last one."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - MAX_OGG_PAGE - MAX_PADDING))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    segments = page[26] if len(page) > 26 else 0
    end = 27 + segments + sum(page[27 : 27 + segments])
    if not segments or len(page) < end or not page[5] & END_OF_STREAM:
        raise AudioError(f"{where} is cut short: its last page is missing or incomplete. {FETCH_AGAIN}")
    if not is_padding(page[end:]):
        raise AudioError(f"{where} has other content after its last page, which is not read. {CONVERT}")


def _require_whole_mp3(file: BinaryIO, where: str, decoded: Decoded) -> None:
    """Compare the number of frames with that in the Xing header, and the samples with those that dr_mp3 finds.

    dr_mp3 (through miniaudio) leaves out an incomplete frame, and stops where the Xing header ends.
    """
    import av
    import miniaudio

    file.seek(0)
    with av.open(file, metadata_errors="replace") as container:
        packets = container.demux(audio=0)
        frames = [(each.pos or 0, each.size) for each in packets if each.size and not is_no_mp3_frame(bytes(each))]
    file.seek(0)
    content = file.read(sum(frames[-1]))
    if len(content) < file.seek(0, os.SEEK_END):  # with tags at the end, FFmpeg keeps the encoder's padding
        decoded = decode_with_ffmpeg(io.BytesIO(content), where)
    try:
        second = miniaudio.mp3_read_s16(content).num_frames
    except miniaudio.DecodeError as error:
        raise AudioError(f"{where} is damaged: {error}. {FETCH_AGAIN}") from error
    file.seek(max(0, frames[0][0] - MAX_MP3_FRAME))
    head = file.read(min(frames[0][0], MAX_MP3_FRAME))
    index = max(head.rfind(b"Xing"), head.rfind(b"Info"))
    flags, count = (int.from_bytes(head[index + start : index + start + 4], "big") for start in (4, 8))
    stated = count if index >= 0 and flags & 1 else 0
    if len(frames) < stated:
        raise AudioError(f"{where} is cut short: it holds {len(frames)} of {stated} frames. {FETCH_AGAIN}")
    if second < len(decoded.frames):
        lengths = f"FFmpeg reads {decoded.seconds:.4g} s and dr_mp3 {second / decoded.rate:.4g} s"
        raise AudioError(f"{where} is cut short, or consists of several joined files: {lengths}. {CONVERT}")
