"""Utterances joined to windows, as MLPerf joins them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from whisperbench.corpus.audio import SAMPLE_RATE, load_audio
from whisperbench.corpus.corpus import Corpus, Utterance, load_corpus
from whisperbench.corpus.inspection import inspect_corpus
from whisperbench.corpus.packing import pack_utterances
from whisperbench.errors import CorpusError

LENGTHS = {
    "1-10-0000": 12.0, "1-10-0001": 17.5, "1-10-0002": 1.0, "1-11-0000": 5.0, "2-20-0000": 31.0, "2-20-0001": 2.0,
}  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    found = []
    for number, (key, seconds) in enumerate(LENGTHS.items(), 1):
        path = tmp_path / f"{key}.flac"
        soundfile.write(path, np.full(int(seconds * SAMPLE_RATE), number * 100, np.int16), SAMPLE_RATE)
        found.append(Utterance(utt_id=key, audio=path, reference=f"TEXT {number}", speaker=key.partition("-")[0]))
    return Corpus("librispeech", "dev", tuple(found), str(tmp_path))


def inspect(corpus: Corpus) -> Corpus:
    return inspect_corpus(corpus, workers=2)


def test_consecutive_utterances_of_a_chapter_share_a_window(corpus: Corpus) -> None:
    """12 + 0.5 + 17.5 s are a window of 30; another chapter is another window; 31 s stay alone."""
    found = pack_utterances(corpus, 30, inspect)
    assert [(u.utt_id, u.reference, u.speaker) for u in found.utterances] == [
        ("1-10-0000+0001", "TEXT 1 TEXT 2", "1"),
        ("1-10-0002", "TEXT 3", "1"),
        ("1-11-0000", "TEXT 4", "1"),
        ("2-20-0000", "TEXT 5", "2"),
        ("2-20-0001", "TEXT 6", "2"),
    ]
    assert [u.seconds for u in found.utterances] == [30.0, 1.0, 5.0, 31.0, 2.0]


def test_audio_is_joined_with_half_a_second_of_silence(corpus: Corpus) -> None:
    """Sample by sample."""
    audio = load_audio(pack_utterances(corpus, 30, inspect).utterances[0].audio)
    first, pause = 12 * SAMPLE_RATE, SAMPLE_RATE // 2
    assert len(audio) == 30 * SAMPLE_RATE
    assert set(audio[:first] * 32768) == {100}
    assert not audio[first : first + pause].any()
    assert set(audio[first + pause :] * 32768) == {200}


def test_packed_data_are_other_data(corpus: Corpus, tmp_path: Path) -> None:
    """A digest of their own, the same again, kept on disk and given up when a file changes; 0 packs nothing."""

    def kept(found: Corpus) -> Corpus:
        return inspect_corpus(found, workers=1, cache_dir=tmp_path / "cache")

    plain, once, again = (pack_utterances(corpus, most, kept) for most in (None, 30, 30))
    assert pack_utterances(corpus, None, kept) == inspect(corpus)
    assert once == again
    assert len({plain.digest, once.digest, pack_utterances(corpus, 20, kept).digest}) == 3
    part = tmp_path / "1-10-0001.flac"  # the second file of a window
    soundfile.write(part, np.full(int(17.5 * SAMPLE_RATE), 7, np.int16), SAMPLE_RATE)
    assert pack_utterances(corpus, 30, kept).digest != once.digest


def test_chapters_are_told_by_ids_of_librispeech() -> None:
    """The demo's other clips belong to no chapter."""
    demo = load_corpus("demo", "all", None)
    with pytest.raises(CorpusError, match=r"is not an id of LibriSpeech.*pack_seconds=none"):
        pack_utterances(demo, 30, inspect)
