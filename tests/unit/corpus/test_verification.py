"""`verified_audio` accepts complete files of every format, and refuses parts and joined files by name."""

from __future__ import annotations

import io
import re
import struct
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from tests.support.audio import Bytes
from whisperbench.corpus.audio import MAX_BYTES, JoinedAudio, load_audio, load_audio_16
from whisperbench.corpus.corpus import DEMO
from whisperbench.corpus.verification import verified_audio
from whisperbench.errors import AudioError

FIRST, SECOND = (
    soundfile.read(DEMO / name, dtype="int16")[0] for name in ("8455-210777-0068.flac", "austen-01-0930.flac")
)
RATE = 16_000
SECONDS = len(FIRST) / RATE
Pcm = npt.NDArray[np.int16]


def by_libsndfile(format_: str, subtype: str | None = None, rate: int = RATE, **options: str) -> Callable[[Pcm], bytes]:
    def write(samples: Pcm) -> bytes:
        content = io.BytesIO()
        soundfile.write(content, samples, rate, format=format_, subtype=subtype, **options)
        return content.getvalue()

    return write


def by_ffmpeg(format_: str, codec: str, rate: int = RATE, tracks: int = 1, **options: str) -> Callable[[Pcm], bytes]:
    def write(samples: Pcm) -> bytes:
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        with tempfile.NamedTemporaryFile() as file:
            with av.open(file.name, "w", format=format_, options=options) as container:
                streams = [container.add_stream(codec, rate=rate, layout="mono") for _ in range(tracks)]
                container.start_encoding()
                for stream in streams:
                    resampler = av.AudioResampler(stream.format, "mono", rate, stream.frame_size or 1024)
                    for part in (*resampler.resample(frame), *resampler.resample(None), None):
                        container.mux(stream.encode(part))
            return file.read()

    return write


WRITERS: Mapping[str, Callable[[Pcm], bytes]] = {
    "wav": by_libsndfile("WAV"),
    "ulaw.wav": by_libsndfile("WAV", "ULAW"),
    "adpcm.wav": by_libsndfile("WAV", "IMA_ADPCM"),
    "extensible.wav": by_libsndfile("WAVEX"),
    "rf64": by_libsndfile("RF64"),
    "w64": by_libsndfile("W64"),
    "aiff": by_libsndfile("AIFF"),
    "au": by_libsndfile("AU"),
    "caf": by_libsndfile("CAF"),
    "sph": by_libsndfile("NIST"),
    "flac": by_libsndfile("FLAC"),
    "ogg": by_libsndfile("OGG", "VORBIS"),
    "opus": by_libsndfile("OGG", "OPUS"),
    "flac.ogg": by_ffmpeg("ogg", "flac"),
    "mp3": by_libsndfile("MP3", bitrate_mode="VARIABLE"),
    "lame.mp3": by_ffmpeg("mp3", "libmp3lame"),
    "unindexed.mp3": lambda samples: without_index(WRITERS["mp3"](samples)),
    "aac": by_ffmpeg("adts", "aac"),
    "amr": by_ffmpeg("amr", "libopencore_amrnb", 8_000),
    "m4a": by_ffmpeg("mp4", "aac"),
    "front.m4a": by_ffmpeg("mp4", "aac", movflags="faststart"),
    "fragments.m4a": by_ffmpeg("mp4", "aac", movflags="frag_keyframe+empty_moov", frag_duration="500000"),
    "3gp": by_ffmpeg("3gp", "aac"),
    "mka": by_ffmpeg("matroska", "libopus", 48_000),
    "webm": by_ffmpeg("webm", "libopus", 48_000),
}


def without_index(content: bytes) -> bytes:
    """An MP3 without the first frame, which holds the Xing header."""
    with av.open(io.BytesIO(content)) as container:
        first = next(iter(container.demux(audio=0)))
    return content[first.pos :]


def seconds_of(content: bytes) -> float | None:
    """The length of a file, or None if it is refused by name."""
    try:
        return len(verified_audio(Bytes(content))[0]) / RATE
    except AudioError as error:
        if "row 7" not in str(error):
            raise
        return None


@pytest.mark.parametrize("name", WRITERS)
def test_complete_files_are_read_whole(name: str) -> None:
    """Also with a tag at the end, and the engine's two ways of reading find as much as the check."""
    content = WRITERS[name](FIRST)
    for whole in (content, content + b"TAG" + bytes(125)):
        if whole is content or name not in ("sph", "amr", "au"):  # these formats have no tags
            assert seconds_of(whole) == pytest.approx(SECONDS, abs=0.11)
    assert len(load_audio(Bytes(content))) == len(load_audio_16(Bytes(content)))
    assert len(load_audio(Bytes(content))) / RATE == seconds_of(content)


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_is_cut_short_is_refused(name: str) -> None:
    """In every format, with or without an index, also by one byte; the last byte of Matroska is not audio."""
    content = WRITERS[name](np.concatenate([FIRST, SECOND]))
    for size in (len(content) // 2, int(0.97 * len(content)), len(content) - (name not in ("mka", "webm"))):
        assert size == len(content) or seconds_of(content[:size]) is None


@pytest.mark.parametrize("name", WRITERS)
def test_joined_files_are_read_whole_or_refused(name: str) -> None:
    """`cat a b > c` gives a file of which most decoders read the first part only."""
    content = WRITERS[name](FIRST)
    found = seconds_of(content + WRITERS[name](SECOND))
    assert found is None or found == pytest.approx(SECONDS + len(SECOND) / RATE, abs=0.25)
    if name in ("wav", "aiff", "m4a", "ogg", "mp3"):  # an ID3 tag at the start of the second is not the end of the file
        assert [seconds_of(content + WRITERS[other](SECOND)) for other in ("lame.mp3", "aac", "flac")] == [None] * 3


def with_size(content: bytes, name: bytes, layout: str, change: Callable[[int], int]) -> bytes:
    """The file with another size of a chunk."""
    place = content.index(name) + len(name)
    (size,) = struct.unpack_from(layout, content, place)
    return content[:place] + struct.pack(layout, change(size)) + content[place + struct.calcsize(layout) :]


@pytest.mark.parametrize(
    ("name", "chunk", "layout"),
    [
        *(("wav", b"data", "<I"), ("aiff", b"SSND", ">I"), ("caf", b"data", ">q")),
        ("rf64", b"ds64" + struct.pack("<IQ", 28, 82_976), "<Q"),
    ],
)
def test_a_header_that_states_too_little_is_refused(name: str, chunk: bytes, layout: str) -> None:
    """As a recorder leaves it that was killed."""
    for divisor in (2, 1 << 40):
        with pytest.raises(AudioError, match="according to its header its content ends after"):
            verified_audio(Bytes(with_size(WRITERS[name](FIRST), chunk, layout, lambda size, by=divisor: size // by)))


def test_a_flac_that_states_too_few_samples_is_refused() -> None:
    """The header of a FLAC states half of its samples, and libsndfile stops there."""
    content = WRITERS["flac"](FIRST)
    half = content[:22] + struct.pack(">I", len(FIRST) // 2) + content[26:]
    with pytest.raises(AudioError, match=r"row 7 is cut short.*: 1\.295 s are read, .* second decoder reads 2\.59 s"):
        verified_audio(Bytes(half))


@pytest.mark.parametrize(
    ("name", "chunk", "layout", "size"),
    [("wav", b"data", "<I", 0xFFFF_FFFF), ("wav", b"data", "<I", 0x7FFF_F000), ("caf", b"data", ">q", -1)],
)
def test_a_file_that_was_written_to_a_pipe_is_read_whole(name: str, chunk: bytes, layout: str, size: int) -> None:
    """Its header states the largest size, because the length was not known."""
    assert seconds_of(with_size(WRITERS[name](FIRST), chunk, layout, lambda _: size)) == SECONDS


ID3V1, ID3V2 = b"TAG" + bytes(125), b"ID3\x04\0\0" + bytes([0, 2, 0, 0]) + bytes(2 << 14)
APE_ITEM = struct.pack("<II", 20, 0) + b"Title\0" + b"x" * 20
APE = APE_ITEM + struct.pack("<8sIIIIQ", b"APETAGEX", 2_000, 32 + len(APE_ITEM), 1, 0x8000_0000, 0)


@pytest.mark.parametrize("name", ["mp3", "lame.mp3", "unindexed.mp3"])
@pytest.mark.parametrize(
    ("before", "after"),
    [(ID3V2, APE), (ID3V2 * 2, APE + ID3V1), (bytes(300), ID3V2), (b"", bytes(512) + ID3V1)],
    ids=["cover and APE", "two tags", "zeros and ID3v2", "zeros and ID3v1"],
)
def test_an_mp3_with_tags_is_read_whole(name: str, before: bytes, after: bytes) -> None:
    """Players, taggers and recorders write tags and zeros to both ends of a file."""
    content = WRITERS[name](FIRST)
    assert seconds_of(before + content + after) == pytest.approx(seconds_of(content), abs=0.15)
    assert (seconds_of(content + after + content) or 2 * SECONDS) >= 2 * SECONDS


def test_metadata_after_the_audio_is_no_second_file() -> None:
    """Recorders write chunks with titles and positions behind the samples."""
    title = b"INAM" + struct.pack("<I", 3) + b"abc\0"
    content = WRITERS["wav"](FIRST) + b"LIST" + struct.pack("<I", 4 + len(title)) + b"INFO" + title
    assert seconds_of(content) == SECONDS
    assert seconds_of(content[:-2]) is None


@pytest.mark.parametrize("name", ["ogg", "opus"])
def test_a_damaged_page_of_an_ogg_file_is_noticed(name: str) -> None:
    """Decoders leave out a page with a wrong checksum; if it is the first one, the others seem to start later."""
    content = WRITERS[name](np.concatenate([FIRST, SECOND]))
    pages = [found.start() for found in re.finditer(b"OggS", content)]
    for page in pages[2:]:
        damaged = bytearray(content)
        damaged[page + 200] ^= 1
        assert seconds_of(bytes(damaged)) is None
    assert seconds_of(content[: pages[2]] + content[pages[3] :]) is None


def test_an_mp3_with_pauses_and_no_index_is_read_whole() -> None:
    """The length that its first bytes suggest is wrong in both directions."""
    for parts in ((np.zeros(80_000, np.int16), FIRST), (FIRST, np.zeros(96_000, np.int16), SECOND)):
        samples = np.concatenate(parts)
        found = seconds_of(WRITERS["unindexed.mp3"](samples))
        assert found == pytest.approx(len(samples) / RATE, abs=0.11)


def test_a_change_of_the_sample_rate_is_refused() -> None:
    """Two MP3 streams of different rates."""
    fast = by_libsndfile("MP3", rate=24_000)(SECOND)
    with pytest.raises(AudioError, match=r"changes from 16000 Hz with 1 channels to 24000 Hz"):
        verified_audio(Bytes(WRITERS["mp3"](FIRST) + fast))


def test_eight_channels_are_averaged() -> None:
    """As microphone arrays and films have; PyAV crashes if it gets them as 8 planes."""
    content = by_libsndfile("FLAC")(np.stack([FIRST] * 8, axis=1))
    assert seconds_of(content) == SECONDS
    assert np.allclose(load_audio(Bytes(content)), FIRST / 32_768, atol=1e-6)


def test_several_tracks_are_refused() -> None:
    """A file with two languages, one of which would be transcribed."""
    with pytest.raises(AudioError, match="has 2 audio tracks, expected one"):
        verified_audio(Bytes(by_ffmpeg("matroska", "libopus", 48_000, tracks=2)(FIRST)))


def test_a_length_that_cannot_be_known_is_refused() -> None:
    """A live WebM states no length, and a part of it is a valid file."""
    with pytest.raises(AudioError, match="does not state its length"):
        verified_audio(Bytes(by_ffmpeg("webm", "libopus", 48_000, live="1")(FIRST)))


@pytest.mark.parametrize("scale", [127, 32_767, 2**31])
def test_float_samples_in_units_of_integers_are_refused(scale: int) -> None:
    """The model would hear noise, and its text would be invented; a peak of 1.4 is accepted."""
    speech = FIRST.astype(np.float64) / np.abs(FIRST).max()
    with pytest.raises(AudioError, match=r"float format are within ±1"):
        verified_audio(Bytes(by_libsndfile("WAV", "FLOAT")(scale * speech)))
    assert seconds_of(by_libsndfile("WAV", "FLOAT")(1.4 * speech)) == SECONDS


@pytest.mark.parametrize("name", ["wav", "flac", "opus"])
def test_silence_is_found(name: str) -> None:
    """All samples are zero, or the channels cancel out; not in speech and not in speech on one channel."""
    other = np.zeros_like(FIRST)
    silent = [other, np.stack([FIRST, -FIRST], axis=1)]
    heard = [FIRST, np.stack([FIRST, other], axis=1), np.stack([FIRST, FIRST], axis=1)]
    for samples, expected in [(each, True) for each in silent] + [(each, False) for each in heard]:
        assert verified_audio(Bytes(WRITERS[name](samples)))[1] is expected


def test_joined_utterances_are_silent_if_all_are() -> None:
    """The silence between them does not count."""
    quiet, loud = Bytes(WRITERS["wav"](np.zeros_like(FIRST))), Bytes(WRITERS["wav"](FIRST))
    assert [verified_audio(JoinedAudio(parts))[1] for parts in ((quiet, quiet), (quiet, loud))] == [True, False]


def test_a_file_beyond_the_memory_is_refused(tmp_path: Path) -> None:
    """Before anything is allocated: a header that states 48 hours, 48 hours of silence, and a sparse file."""
    content = bytearray(WRITERS["flac"](FIRST))
    count = 48 * 3600 * RATE
    content[21] |= count >> 32
    content[22:26] = (count & 0xFFFF_FFFF).to_bytes(4, "big")
    for load in (load_audio, load_audio_16, verified_audio):
        with pytest.raises(AudioError, match=r"row 7 lasts 48\.0 hours or more"):
            load(Bytes(bytes(content)))
    (tmp_path / "a.ogg").write_bytes(b"OggS")
    with (tmp_path / "a.ogg").open("r+b") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(AudioError, match=r"a\.ogg has 8,589,934,593 bytes, more than the limit"):
        verified_audio(tmp_path / "a.ogg")
