"""`load_audio` returns exact samples, and refuses damaged files with a message that names the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.audio import Bytes
from whisperbench.corpus.audio import SAMPLE_RATE, JoinedAudio, load_audio, load_audio_16
from whisperbench.corpus.corpus import DEMO
from whisperbench.errors import AudioError

EXAMPLES = 60  # raised to 10,000 by hand before a release
CLIP = DEMO / "8455-210777-0068.flac"
PCM, RATE = soundfile.read(CLIP, dtype="int16")


def written(
    folder: Path, name: str, samples: npt.NDArray[np.generic] = PCM, rate: int = RATE, subtype: str | None = None
) -> Path:
    soundfile.write(folder / name, samples, rate, subtype=subtype)
    return folder / name


def written_m4a(path: Path) -> Path:
    """The clip as AAC with its index in front, so that a cut file still opens."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(PCM[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        for part in (frame, None):
            container.mux(stream.encode(part))
    return path


@pytest.mark.parametrize("name", ["a.wav", "a.WAV", "a.flac"])
def test_lossless_files_are_read_sample_for_sample(tmp_path: Path, name: str) -> None:
    """In float32 in [-1, 1] and in 16 bits, from a file and from bytes, without rounding."""
    path = written(tmp_path, name)
    for source in (path, Bytes(path.read_bytes())):
        audio, audio_16 = load_audio(source), load_audio_16(source)
        assert (audio.dtype, audio_16.dtype) == (np.float32, np.int16)
        assert np.array_equal(audio * 32768, PCM)
        assert np.array_equal(audio_16, PCM)


def test_flac_like_librispeechs_is_not_read_by_libsndfile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mono FLAC in 16 bits at 16 kHz: half of a client's time went there."""
    monkeypatch.setattr("soundfile.SoundFile", None)
    assert np.array_equal(load_audio_16(CLIP), PCM)


@pytest.mark.parametrize("place", [0.02, 0.5, 0.98])
def test_a_flac_with_a_damaged_frame_is_an_error_in_16_bits_too(tmp_path: Path, place: float) -> None:
    """dr_flac skips such a frame, so a file with too few samples is decoded again by libsndfile, which raises."""
    content = bytearray(CLIP.read_bytes())
    content[int(place * len(content))] ^= 0xFF
    (tmp_path / "bad.flac").write_bytes(content)
    with pytest.raises(AudioError, match=r"bad\.flac is damaged or cut short"):
        load_audio_16(tmp_path / "bad.flac")


def test_other_formats_are_rounded_to_16_bits(tmp_path: Path) -> None:
    """More bits, several channels, another rate, lossy formats and joined recordings; clipped at 1."""
    sources = [
        written(tmp_path, "deep.flac", PCM.astype(np.int32) * 65_536 + 40_000, subtype="PCM_24"),
        written(tmp_path, "float.wav", PCM.astype(np.float32) / 1_000, subtype="FLOAT"),
        written(tmp_path, "stereo.flac", np.stack([PCM, PCM[::-1]], axis=1)),
        written(tmp_path, "slow.flac", rate=8_000),
        written(tmp_path, "a.ogg"),
        written_m4a(tmp_path / "a.m4a"),
        JoinedAudio((CLIP, CLIP)),
    ]
    for source in sources:
        audio = load_audio_16(source)
        assert audio.dtype == np.int16
        assert np.array_equal(audio, np.rint(load_audio(source).astype(np.float64) * 32_768).clip(-32_768, 32_767))


@pytest.mark.parametrize(
    ("name", "subtype"), [("a.mp3", None), ("a.ogg", None), ("a.m4a", None), ("telephone.wav", "GSM610")]
)
def test_lossy_formats_sound_alike(tmp_path: Path, name: str, subtype: str | None) -> None:
    """MP3, Ogg, m4a and GSM keep the speech: nearly the same length, spectra that correlate."""
    path = written_m4a(tmp_path / name) if name == "a.m4a" else written(tmp_path, name, subtype=subtype)
    audio = load_audio(path)
    assert audio.size == pytest.approx(PCM.size, abs=2 * 1024)
    spectra = [
        np.abs(np.fft.rfft(x, n=1 << 16)).reshape(-1)[:8192].reshape(-1, 32).sum(1) for x in (audio, load_audio(CLIP))
    ]
    assert np.corrcoef(*spectra)[0, 1] > 0.98


def test_channels_are_averaged(tmp_path: Path) -> None:
    """Mono is the mean of the channels, not the first of them."""
    stereo = written(tmp_path, "stereo.wav", np.stack([PCM, np.zeros_like(PCM)], axis=1))
    assert np.allclose(load_audio(stereo), load_audio(CLIP) / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_other_rates_are_resampled_as_librosa_does(tmp_path: Path, rate: int) -> None:
    """The result is librosa's soxr_hq, and the length is that of the seconds."""
    import librosa

    path = written(tmp_path, "a.wav", rate=rate)
    expected = librosa.resample(load_audio(CLIP), orig_sr=rate, target_sr=SAMPLE_RATE, res_type="soxr_hq")
    audio = load_audio(path)
    assert abs(audio.size - expected.size) <= 1
    shared = min(audio.size, expected.size)
    assert np.allclose(audio[:shared], expected[:shared], atol=1e-6)


def test_flac_of_unknown_length_is_read_whole(tmp_path: Path) -> None:
    """A FLAC that was written to a pipe has no length in its header."""
    content = bytearray(CLIP.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path = tmp_path / "pipe.flac"
    path.write_bytes(content)
    assert np.array_equal(load_audio(path), load_audio(CLIP))


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("cut.flac", lambda content: content[: len(content) // 2], "cut short"),
        ("scratched.flac", lambda content: content[:20_000] + bytes(64) + content[20_064:], "damaged"),
        ("empty.wav", lambda _: b"", "empty file"),
        ("text.wav", lambda _: b"MISTER QUILTER IS THE APOSTLE", "not audio"),
    ],
)
def test_damaged_files_are_refused_by_name(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes], reason: str
) -> None:
    """The message names the file, the reason and the remedy."""
    path = written(tmp_path, name)
    path.write_bytes(damage(path.read_bytes()))
    for load in (load_audio, load_audio_16):
        with pytest.raises(AudioError, match=rf"{name} .*{reason}.*Fetch the file again"):
            load(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path: Path, bad: float) -> None:
    """One NaN would make a whole window of features NaN."""
    samples = (PCM / 32768).astype(np.float32)
    samples[5] = bad
    with pytest.raises(AudioError, match="not finite numbers"):
        load_audio(written(tmp_path, "a.wav", samples, subtype="FLOAT"))


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    """A WAV of zero samples is valid and useless."""
    with pytest.raises(AudioError, match="has no samples"):
        load_audio(written(tmp_path, "a.wav", PCM[:0]))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """The message has the path and the error of the operating system."""
    with pytest.raises(AudioError, match=r"gone\.flac cannot be read: No such file"):
        load_audio(tmp_path / "gone.flac")


@settings(max_examples=EXAMPLES, deadline=None)
@given(position=st.integers(0, CLIP.stat().st_size - 1), patch=st.binary(min_size=1, max_size=40))
def test_any_damage_is_an_audio_error_or_audio(position: int, patch: bytes) -> None:
    """Bytes overwritten anywhere give audio or an AudioError, and no other exception."""
    content = CLIP.read_bytes()
    try:
        audio = load_audio(Bytes(content[:position] + patch + content[position + len(patch) :]))
    except AudioError:
        return
    assert audio.dtype == np.float32
    assert audio.ndim == 1
    assert audio.size > 0
