"""Every file of a corpus is decoded once: what the digest covers, what is kept, and which bad file is named."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.corpora import load, manifest, parquet, put
from whisperbench.corpus import inspection
from whisperbench.corpus.audio import SAMPLE_RATE, AudioSource, Samples
from whisperbench.corpus.corpus import Corpus
from whisperbench.corpus.inspection import inspect_corpus, require_unchanged
from whisperbench.corpus.verification import verified_audio
from whisperbench.errors import AudioError, CorpusError, WhisperbenchError
from whisperbench.files import changed_files


@pytest.fixture
def two(tmp_path: Path) -> Corpus:
    put(tmp_path, "a.wav", "b.wav")
    manifest(tmp_path, {"audio": "a.wav", "text": ""}, {"audio": "b.wav", "text": "x", "speaker": "s"})
    return load(tmp_path)


def changed(corpus: Corpus, index: int, **fields: object) -> Corpus:
    import dataclasses

    utterances = list(corpus.utterances)
    utterances[index] = dataclasses.replace(utterances[index], **fields)  # type: ignore[arg-type]
    return dataclasses.replace(corpus, utterances=tuple(utterances))


def digest(corpus: Corpus) -> str:
    return inspect_corpus(corpus, workers=2).digest


def test_digest_covers_ids_references_audio_and_order(two: Corpus, tmp_path: Path) -> None:
    """Each of the four changes it; no reference is another one than an empty text."""
    soundfile.write(tmp_path / "other.wav", np.array([0, 1, 3], np.int16), SAMPLE_RATE)
    variants = [
        two,
        changed(two, 0, utt_id="aa"),
        changed(two, 0, reference=None),
        changed(two, 1, reference="y"),
        changed(two, 1, audio=tmp_path / "other.wav"),
        Corpus(two.name, two.split, two.utterances[::-1], two.source),
        Corpus(two.name, two.split, two.utterances[:1], two.source),
    ]
    assert len({digest(variant) for variant in variants}) == len(variants)


def test_digest_leaves_out_paths_containers_and_speakers(two: Corpus, tmp_path: Path) -> None:
    """The same samples in FLAC, elsewhere, are the same data."""
    soundfile.write(tmp_path / "c.flac", np.array([0, 1, 2], np.int16), SAMPLE_RATE)
    assert digest(two) == digest(changed(two, 1, audio=tmp_path / "c.flac", speaker=None))
    assert len(digest(two)) == 32


def test_a_corpus_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is kept; a file or a text that changes is looked at again."""
    put(tmp_path / "c", "a.wav", "b.wav")
    soundfile.write(tmp_path / "c" / "b.wav", np.zeros(9, np.int16), SAMPLE_RATE)
    (tmp_path / "c" / "t.trans.txt").write_text("a HELLO\nb WORLD\n")
    decoded: list[str] = []

    def loading(source: AudioSource) -> tuple[Samples, bool]:
        decoded.append(source.name)
        return verified_audio(source)

    monkeypatch.setattr(inspection, "verified_audio", loading)

    def inspect() -> tuple[Corpus, list[str]]:
        decoded.clear()
        done = itertools.count()
        facts = inspect_corpus(load(tmp_path / "c"), 1, lambda: next(done), tmp_path / "cache")
        assert next(done) == 2
        return facts, list(decoded)

    first, looked_at = inspect()
    assert (looked_at, first.silent) == (["a.wav", "b.wav"], ("b",))
    assert inspect() == (first, [])
    os.utime(tmp_path / "c" / "a.wav", ns=(1, 1))
    assert inspect() == (first, ["a.wav", "b.wav"])
    (tmp_path / "c" / "t.trans.txt").write_text("a HELLO\nb WORDS\n")
    changed_text, looked_at = inspect()
    assert looked_at == ["a.wav", "b.wav"]
    assert changed_text.digest != first.digest
    for alter in (lambda text: text[:20], lambda text: text.replace(changed_text.digest, first.digest)):
        for kept in (tmp_path / "cache").rglob("*.json"):
            kept.write_text(alter(kept.read_text()))
        assert inspect() == (changed_text, ["a.wav", "b.wav"])


def test_what_comes_from_the_hub_is_decoded_once_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of a row is that of its parquet file and of the copy that `datasets` reads."""
    parquet(tmp_path / "hub", "test-clean")
    first = inspect_corpus(load(tmp_path / "hub"), 1, cache_dir=tmp_path / "cache")
    assert {path.suffix for path in first.files} == {".parquet", ".arrow"}
    monkeypatch.setattr(inspection, "verified_audio", None)
    assert inspect_corpus(load(tmp_path / "hub"), 1, cache_dir=tmp_path / "cache") == first


def test_inspection_names_the_first_bad_file_in_order(tmp_path: Path) -> None:
    """With several bad files and threads, the error is always that of the first."""
    put(tmp_path, *(f"{number:02}.wav" for number in range(20)))
    for number in (5, 6, 17):
        (tmp_path / f"{number:02}.wav").write_bytes(b"no audio")
    with pytest.raises(AudioError, match=r"05\.wav"):
        inspect_corpus(load(tmp_path), workers=4)


def replaced(path: Path) -> None:
    """Other content of the same length and with the same time of modification, by another file."""
    times = path.stat()
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes()[::-1])
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)


def overwritten(path: Path) -> None:
    """Other samples of the same length in the same file, with the same time of modification."""
    times, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-2] + b"\x01\x02")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("change", [replaced, overwritten, Path.unlink])
def test_a_file_that_changes_after_its_check_is_named(tmp_path: Path, change: Callable[[Path], object]) -> None:
    """The digest would not be that of the transcribed audio."""
    corpus = inspect_corpus(load(put(tmp_path, "a.wav", "b.wav")), 1)
    require_unchanged(corpus)
    change(tmp_path / "b.wav")
    with pytest.raises(WhisperbenchError, match=r"1 of 2 files with audio changed .*/b\.wav"):
        require_unchanged(corpus)


@pytest.mark.parametrize(
    "change", [lambda path: path.chmod(0o600), lambda path: path.with_suffix(".bak").hardlink_to(path)]
)
def test_a_change_of_attributes_is_no_change_of_content(tmp_path: Path, change: Callable[[Path], object]) -> None:
    """A backup by hard links during a long run does not make its result invalid."""
    corpus = inspect_corpus(load(put(tmp_path, "a.wav", "b.wav")), 1)
    change(tmp_path / "b.wav")
    assert changed_files(corpus.files) == [tmp_path / "b.wav"]
    require_unchanged(corpus)


def test_a_file_that_changes_during_the_check_is_not_cached(tmp_path: Path) -> None:
    """Neither the old nor the new content has the digest."""
    corpus = load(put(tmp_path / "c", "a.wav", "b.wav"))

    def change() -> None:
        replaced(tmp_path / "c" / "a.wav")

    with pytest.raises(WhisperbenchError, match=r"changed after they were checked.*a\.wav"):
        inspect_corpus(corpus, 1, change, tmp_path / "cache")
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("fields", "stated"),
    [
        ({"duration": 1.0}, ""),
        ({"duration": 1.5}, "1.5"),
        ({"duration": float("nan")}, "nan"),
        ({"start": 0.25, "end": 0.75}, "0.5"),
        ({"start_time": 0, "end_time": 0.5}, "0.5"),
        ({"start": "2026-01-01"}, ""),
    ],
)
def test_an_entry_that_states_another_length_is_refused(tmp_path: Path, fields: dict[str, object], stated: str) -> None:
    """Otherwise a part would be scored as the whole; a file may be one that was cut out of a longer recording."""
    soundfile.write(tmp_path / "a.wav", np.zeros(SAMPLE_RATE, np.int16), SAMPLE_RATE)
    manifest(tmp_path, {"audio": "a.wav", "text": "x", **fields})
    corpus = load(tmp_path)
    if not stated:
        assert inspect_corpus(corpus, 1).utterances[0].seconds == 1.0
        return
    with pytest.raises(CorpusError, match=rf"a lasts 1\.00 s, but its entry states {stated} s"):
        inspect_corpus(corpus, 1)
