"""What a corpus option may be, the order and digest of what comes out, and each way a corpus can be wrong."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from whisperbench.errors import AudioError, CorpusError
from whisperbench.inputs import inspection
from whisperbench.inputs import librispeech as hub
from whisperbench.inputs.audio import SAMPLE_RATE, AudioSource, Samples, load_audio
from whisperbench.inputs.corpus import DEMO, Corpus, Utterance, load_corpus
from whisperbench.inputs.inspection import CorpusFacts, inspect_corpus
from whisperbench.inputs.transcript_files import read_transcript

EXAMPLES = 150  # raised to 10,000 by hand before a release
PROJECT = Path(__file__).resolve().parents[2]
SAMPLE = PROJECT.parent / "shared" / "librispeech-sample"
LIBRI = ("2830-3980-0043", "4507-16021-0012", "8455-210777-0068")
B_WAV = b'\n{"audio": "b.wav", "text": "y"}\n'
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason="the LibriSpeech sample is not beside the project")


def load(folder: Path, split: str = "test-clean", limit: int = 0) -> Corpus:
    return load_corpus(str(folder), split, limit)


def ids(corpus: Corpus) -> list[str]:
    return [utterance.id for utterance in corpus.utterances]


def put(folder: Path, *names: str) -> Path:
    """Audio files of three samples each."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.array([0, 1, 2], np.int16), SAMPLE_RATE)
    return folder


def manifest(folder: Path, *records: object) -> None:
    (folder / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")


def openslr(root: Path, split: str = "test-clean") -> Path:
    """The demo's LibriSpeech clips in OpenSLR's layout, under `root`/LibriSpeech."""
    texts = {utterance.id: utterance.reference for utterance in load_corpus("demo", "all", 0).utterances}
    for key in LIBRI:
        speaker, chapter, _ = key.split("-")
        folder = root / "LibriSpeech" / split / speaker / chapter
        folder.mkdir(parents=True)
        shutil.copy(DEMO / f"{key}.flac", folder)
        (folder / f"{speaker}-{chapter}.trans.txt").write_text(f"{key} {texts[key]}\n", "utf-8")
    return root


def parquet(root: Path, split: str = "test-clean", drop: Sequence[str] = ()) -> Path:
    """The demo's LibriSpeech clips in the hub's layout and schema."""
    import datasets

    utterances = [u for u in load_corpus("demo", "all", 0).utterances if u.id in LIBRI][::-1]
    columns = {
        "file": [u.audio.name for u in utterances],
        "audio": [{"bytes": (DEMO / u.audio.name).read_bytes(), "path": u.audio.name} for u in utterances],
        "text": [u.reference for u in utterances],
        "speaker_id": [int(u.speaker or 0) for u in utterances],
        "chapter_id": [int(u.id.split("-")[1]) for u in utterances],
        "id": [u.id for u in utterances],
    }
    rows = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))
    folder = root / hub.FOLDERS[split]
    folder.mkdir(parents=True)
    rows.remove_columns(list(drop)).to_parquet(folder / "0000.parquet")
    return root


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory-mapped copies go into the test's folder, not into the user's cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


# what can be loaded


def test_demo_is_eight_clips_with_transcripts_and_speakers() -> None:
    """The clips in the package need no download and their digest is fixed."""
    corpus = load_corpus("demo", "test-clean", 0)
    assert (corpus.name, corpus.split, len(corpus.utterances)) == ("demo", "all", 8)
    assert {utterance.speaker for utterance in corpus.utterances} == {"2830", "4507", "8455", "austen-reader"}
    assert corpus.utterances[0].reference == "EXPERIENCE PROVES THIS"
    facts = inspect_corpus(corpus, workers=2)
    assert facts.seconds == (1.975, 2.735, 2.59, 7.1, 2.99, 5.3, 6.05, 3.29)
    assert facts.digest == "951f9b4716873004160da9fa3adb11a6"


def test_demo_names_the_authors_of_its_clips() -> None:
    """CC BY 4.0 asks for the names, the licence and the source."""
    text = (DEMO / "ATTRIBUTION.md").read_text("utf-8")
    for name in ("Panayotov", "Chen", "Povey", "Khudanpur", "by/4.0", "openslr.org/12", "LibriVox", "public domain"):
        assert name in text


def test_openslr_tree_is_found_from_three_folders(tmp_path: Path) -> None:
    """The folder above LibriSpeech/, LibriSpeech/ itself and one split's folder hold the same corpus."""
    root = openslr(tmp_path)
    corpora = [load(root), load(root / "LibriSpeech"), load(root / "LibriSpeech" / "test-clean")]
    assert all(corpus.utterances == corpora[0].utterances for corpus in corpora)
    assert {(corpus.name, corpus.split) for corpus in corpora} == {("librispeech", "test-clean")}
    assert ids(corpora[0]) == list(LIBRI)
    assert [utterance.speaker for utterance in corpora[0].utterances] == ["2830", "4507", "8455"]


@needs_sample
@pytest.mark.parametrize(
    ("split", "count", "seconds"),
    [("test-clean", 23, 167.615), ("test-other", 30, 166.6500625), ("dev-clean", 7, 62.97)],
)
def test_librispeech_sample(split: str, count: int, seconds: float) -> None:
    """The sample's splits have the number of utterances and the seconds that its manifest says."""
    corpus = load(SAMPLE, split)
    facts = inspect_corpus(corpus, workers=2)
    lines = [json.loads(line) for line in (SAMPLE / "manifest.jsonl").read_text("utf-8").splitlines()]
    expected = sorted((line["id"], line["text"], line["duration"]) for line in lines if line["split"] == split)
    assert len(corpus.utterances) == count
    assert [(u.id, u.reference) for u in corpus.utterances] == [line[:2] for line in expected]
    assert list(facts.seconds) == pytest.approx([line[2] for line in expected], abs=1e-3)
    assert facts.audio_seconds == pytest.approx(seconds)


def test_folder_with_manifest(tmp_path: Path) -> None:
    """A manifest gives id, text and speaker; the id falls back to the file, the speaker to none."""
    put(tmp_path, "a.wav", "deep/er/b.flac")
    manifest(
        tmp_path,
        {"id": "z", "audio": "a.wav", "text": "one", "speaker": 7},
        {"audio": "./deep/er/b.flac", "text": "two", "extra": []},
    )
    found = [(u.id, u.reference, u.speaker) for u in load(tmp_path).utterances]
    assert found == [("deep/er/b", "two", None), ("z", "one", "7")]


@pytest.mark.parametrize("column", ["text", "transcription"])
def test_folder_with_metadata_csv(tmp_path: Path, column: str) -> None:
    """The audio folder format of `datasets`, with quotes, a comma, a BOM and columns that mean nothing here."""
    put(tmp_path, "a.wav", "b.wav")
    text = f'\ufefffile_name,other,{column},speaker\na.wav,1,"well, yes",ann\n\nb.wav,2,no,\n'
    (tmp_path / "metadata.csv").write_text(text, "utf-8")
    found = [(u.id, u.reference, u.speaker) for u in load(tmp_path).utterances]
    assert found == [("a", "well, yes", "ann"), ("b", "no", None)]


def test_folder_with_trans_txt(tmp_path: Path) -> None:
    """LibriSpeech's own format beside any audio; Windows line ends do no harm; no words are an empty text."""
    put(tmp_path, "x/a.mp3", "x/b.ogg")
    (tmp_path / "x" / "x.trans.txt").write_bytes(b"a HELLO  THERE\r\n\r\nb\r\n")
    assert [(u.id, u.reference) for u in load(tmp_path).utterances] == [("a", "HELLO  THERE"), ("b", "")]


def test_folder_without_transcripts_has_no_references(tmp_path: Path) -> None:
    """Audio alone is a corpus for throughput; the id is the path, and Finder's shadow files are no audio."""
    put(tmp_path, "b.wav", "a/b.FLAC")
    (tmp_path / "._b.wav").write_bytes(b"resource fork")
    corpus = load(tmp_path)
    assert [(u.id, u.reference) for u in corpus.utterances] == [("a/b", None), ("b", None)]
    assert (corpus.name, corpus.split) == (tmp_path.name, "all")


@pytest.mark.usefixtures("datasets_cache")
def test_hub_schema_is_the_same_corpus_as_openslr(tmp_path: Path) -> None:
    """A local copy of the hub's parquet files and the OpenSLR tree have one order and one digest."""
    from_hub = load(parquet(tmp_path / "hub", "test-other"), "test-other")
    from_tree = load(openslr(tmp_path / "tree"))
    assert [(u.id, u.reference, u.speaker) for u in from_hub.utterances] == [
        (u.id, u.reference, u.speaker) for u in from_tree.utterances
    ]
    assert inspect_corpus(from_hub, workers=2) == inspect_corpus(from_tree, workers=1)


def test_limit_takes_the_first_by_id(tmp_path: Path) -> None:
    """The order is that of the ids as text, whatever the order of the transcripts."""
    put(tmp_path, "a.wav", "b.wav", "c.wav")
    manifest(tmp_path, *({"audio": f"{name}.wav", "text": "x"} for name in "cab"))
    assert ids(load(tmp_path)) == ["a", "b", "c"]
    assert ids(load(tmp_path, limit=2)) == ["a", "b"]
    assert ids(load(tmp_path, limit=3)) == ["a", "b", "c"]


# what the digest covers


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


def test_digest_tells_no_reference_from_an_empty_one(two: Corpus) -> None:
    """None is "not transcribed", an empty text is "nothing is said"."""
    assert digest(two) != digest(changed(two, 0, reference=None))


def test_digest_covers_ids_references_audio_and_order(two: Corpus, tmp_path: Path) -> None:
    """Each of the four changes it; and text cannot move from one field into the next."""
    soundfile.write(tmp_path / "other.wav", np.array([0, 1, 3], np.int16), SAMPLE_RATE)
    variants = [
        two,
        changed(two, 0, id="aa"),
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


def test_facts_count_what_is_over_thirty_seconds() -> None:
    """Exactly 30 s is one window."""
    facts = CorpusFacts((29.0, 30.0, 30.0001, 35.2), "0" * 32)
    assert facts.utterances_over_30s == 2
    assert facts.audio_seconds == pytest.approx(124.2001)


def test_inspection_reports_progress_in_order(two: Corpus) -> None:
    """A progress bar sees 1, 2, ... up to the number of utterances."""
    seen: list[int] = []
    inspect_corpus(two, workers=2, progress=seen.append)
    assert seen == [1, 2]


def test_a_corpus_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is kept; a file or a text that changes is looked at again."""
    put(tmp_path / "c", "a.wav", "b.wav")
    (tmp_path / "c" / "t.trans.txt").write_text("a HELLO\nb WORLD\n")
    decoded: list[str] = []

    def loading(source: AudioSource) -> Samples:
        decoded.append(source.name)
        return load_audio(source)

    monkeypatch.setattr(inspection, "load_audio", loading)

    def inspect() -> tuple[CorpusFacts, list[str]]:
        decoded.clear()
        seen: list[int] = []
        facts = inspect_corpus(load(tmp_path / "c"), 1, seen.append, tmp_path / "cache")
        assert seen[-1] == 2
        return facts, list(decoded)

    first, looked_at = inspect()
    assert looked_at == ["a.wav", "b.wav"]
    assert inspect() == (first, [])
    os.utime(tmp_path / "c" / "a.wav", ns=(1, 1))
    assert inspect() == (first, ["a.wav", "b.wav"])
    (tmp_path / "c" / "t.trans.txt").write_text("a HELLO\nb WORDS\n")
    changed_text, looked_at = inspect()
    assert looked_at == ["a.wav", "b.wav"]
    assert changed_text.digest != first.digest
    for kept in (tmp_path / "cache").rglob("*.json"):
        kept.write_text('{"seconds": [1.0]')
    assert inspect() == (changed_text, ["a.wav", "b.wav"])


def test_a_file_that_breaks_is_found_although_it_was_good(tmp_path: Path) -> None:
    """What is kept hides no bad file."""
    put(tmp_path / "c", "a.wav", "b.wav")
    corpus = load(tmp_path / "c")
    inspect_corpus(corpus, 1, cache_dir=tmp_path / "cache")
    (tmp_path / "c" / "b.wav").write_bytes(b"no audio")
    with pytest.raises(AudioError, match=r"b\.wav"):
        inspect_corpus(corpus, 1, cache_dir=tmp_path / "cache")
    (tmp_path / "c" / "b.wav").unlink()
    with pytest.raises(AudioError, match=r"b\.wav"):
        inspect_corpus(corpus, 1, cache_dir=tmp_path / "cache")


def test_what_comes_from_the_hub_is_decoded_once_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of a row is that of its parquet files."""
    parquet(tmp_path / "hub", "test-clean")
    first = inspect_corpus(load(tmp_path / "hub"), 1, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(inspection, "load_audio", None)
    assert inspect_corpus(load(tmp_path / "hub"), 1, cache_dir=tmp_path / "cache") == first


def test_inspection_names_the_first_bad_file_in_order(tmp_path: Path) -> None:
    """With several bad files and threads, the error is always that of the first."""
    put(tmp_path, *(f"{number:02}.wav" for number in range(20)))
    for number in (5, 6, 17):
        (tmp_path / f"{number:02}.wav").write_bytes(b"no audio")
    for _ in range(5):
        with pytest.raises(AudioError, match=r"05\.wav"):
            inspect_corpus(load(tmp_path), workers=4)


# what is refused


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ("/no/such/folder", "does not exist. Use librispeech, demo, or a directory"),
        ("Librispeach", "Did you mean librispeech"),
        (__file__, "is a file, not a directory"),
    ],
)
def test_a_corpus_that_is_not_there(corpus: str, message: str) -> None:
    """The message says what would work."""
    with pytest.raises(CorpusError, match=message):
        load_corpus(corpus, "test-clean", 0)


def test_a_folder_without_audio(tmp_path: Path) -> None:
    """The message lists the kinds of files that are looked for."""
    (tmp_path / "notes.txt").write_text("hello", "utf-8")
    with pytest.raises(CorpusError, match=r"holds no audio.*\.flac"):
        load(tmp_path)


def test_a_split_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    """OpenSLR tree or one split's folder: the message says what it holds."""
    openslr(tmp_path, "dev-clean")
    for folder in (tmp_path, tmp_path / "LibriSpeech" / "dev-clean"):
        with pytest.raises(CorpusError, match=r"'test-other' is not in .*; it holds dev-clean"):
            load(folder, "test-other")


def test_a_limit_above_the_corpus_says_its_size(tmp_path: Path) -> None:
    """Fewer utterances than asked for would be another benchmark."""
    with pytest.raises(CorpusError, match=r"limit=3, but .* holds 2 utterances"):
        load(put(tmp_path, "a.wav", "b.wav"), limit=3)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "manifest.jsonl",
            b'{"audio": "a.wav", "text": "x"}\n',
            "1 of 2 audio files have no transcript, the first is 'b.wav'",
        ),
        ("t.trans.txt", b"a X\nb Y\nc Z\n", r"t\.trans\.txt line 3: there is no audio file 'c'"),
        ("metadata.csv", b"file_name,text\na.wav,x\nc.wav,y\n", r"line 3: there is no audio file 'c\.wav'"),
        ("t.trans.txt", b"a X\nb \xff\n", r"not UTF-8: byte 6 is 0xff.*iconv"),
        ("t.trans.txt", b"a X\nb Y\n\na Z\n", r"line 4: the id 'a' is taken by .* line 1"),
        ("manifest.jsonl", b'{"audio": "a.wav"}\n\n{"audio": \n', "line 3 is not JSON"),
        ("manifest.jsonl", b"[" * 200_000, "line 1 is not JSON"),
        ("manifest.jsonl", b'{"file": "a.wav"}', 'line 1 is not an object with an "audio" file'),
        ("manifest.jsonl", b'{"audio": "a.wav", "text": 3}', "line 1: text must be a text or null"),
        ("manifest.jsonl", b'{"audio": "a.wav", "text": "\\ud800"}', "line 1: text must be a text or null"),
        (
            "manifest.jsonl",
            b'{"audio": "a.wav", "text": "x"}\n{"audio": "b.wav"}',
            "1 of 2 utterances have no text, .* line 2",
        ),
        ("metadata.csv", b"file_name,text\na.wav,x\nb.wav,y,z\n", "line 3 has 3 fields, the header 2"),
        ("metadata.csv", b"name,text\na.wav,x\n", "line 1 must name its columns"),
        ("metadata.csv", b'file_name,text\na.wav,"x"y\n', "line 2 is not CSV"),
        ("metadata.csv", b"", "line 1 must name its columns"),
        ("manifest.jsonl", b'{"audio": "../a.wav", "text": "x"}', "leaves the corpus"),
        ("manifest.jsonl", b'{"audio": "/etc/passwd", "text": "x"}', "leaves the corpus"),
        ("manifest.jsonl", b'{"audio": "a\\u0000.wav", "text": "x"}', "control character"),
        ("manifest.jsonl", b'{"audio": "a.wav", "id": "a\\nb", "text": "x"}' + B_WAV, "control character"),
        ("manifest.jsonl", b'{"audio": "a.wav", "id": "a\\u0000", "text": "x"}' + B_WAV, "control character"),
        ("manifest.jsonl", b'{"audio": "a.wav", "id": "../../a", "text": "x"}' + B_WAV, "leaves the corpus"),
        ("manifest.jsonl", b'{"audio": "a.wav", "speaker": "\\u001b[2J", "text": "x"}' + B_WAV, "control character"),
        ("t.trans.txt", b"../a X\n", "leaves the corpus"),
    ],
)
def test_a_transcript_that_is_wrong(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """Each mistake is named with its file and line."""
    put(tmp_path, "a.wav", "b.wav")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=message) as caught:
        load(tmp_path)
    assert len(str(caught.value)) < 2_000


def test_one_id_for_two_files_is_refused(tmp_path: Path) -> None:
    """Which of a.wav and a.flac is meant cannot be guessed, with a transcript or without."""
    put(tmp_path, "a.wav", "a.flac")
    with pytest.raises(CorpusError, match="the id 'a' is taken"):
        load(tmp_path)
    (tmp_path / "t.trans.txt").write_text("a X\n", "utf-8")
    with pytest.raises(CorpusError, match=r"a\.wav and a\.flac could be meant"):
        load(tmp_path)


@pytest.mark.parametrize("inside", ["a.wav", "folder"])
def test_links_out_of_the_corpus_are_refused(tmp_path: Path, inside: str) -> None:
    """A link to a file or a folder elsewhere would escape the folder that was named."""
    outside = put(tmp_path / "outside", "a.wav")
    corpus = put(tmp_path / "corpus", "b.wav")
    (corpus / inside).symlink_to(outside / "a.wav" if inside == "a.wav" else outside)
    with pytest.raises(CorpusError, match="outside the corpus"):
        load(corpus)


def test_links_inside_the_corpus_are_followed(tmp_path: Path) -> None:
    """A second name for a file of the corpus is no escape."""
    put(tmp_path, "a.wav")
    (tmp_path / "b.wav").symlink_to(tmp_path / "a.wav")
    assert ids(load(tmp_path)) == ["a", "b"]


def test_a_file_name_with_a_line_feed_is_refused(tmp_path: Path) -> None:
    """The id would break every table and log that it stands in."""
    with pytest.raises(CorpusError, match="control character"):
        load(put(tmp_path, "a\nb.wav"))


@pytest.mark.parametrize("name", ["manifest.jsonl", "metadata.csv", "t.trans.txt"])
def test_ten_megabytes_in_one_line(tmp_path: Path, name: str) -> None:
    """A long line is a long text."""
    text = "WORD " * 2_000_000 + "END"
    content = {
        "manifest.jsonl": json.dumps({"audio": "a.wav", "text": text}),
        "metadata.csv": f"file_name,text\na.wav,{text}\n",
        "t.trans.txt": f"a {text}\n",
    }
    put(tmp_path, "a.wav")
    (tmp_path / name).write_text(content[name], "utf-8")
    assert load(tmp_path).utterances[0].reference == text


@pytest.mark.usefixtures("datasets_cache")
def test_parquet_of_another_schema(tmp_path: Path) -> None:
    """The message names the missing column."""
    with pytest.raises(CorpusError, match="lacks id of the columns"):
        load(parquet(tmp_path, drop=["id"]))


@pytest.mark.usefixtures("datasets_cache")
def test_parquet_that_is_not_parquet(tmp_path: Path) -> None:
    """A file that was cut short while it was copied."""
    (tmp_path / "clean" / "test").mkdir(parents=True)
    (tmp_path / "clean" / "test" / "0000.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(CorpusError, match="holds no parquet data set"):
        load(tmp_path)


def test_a_part_that_librispeech_does_not_have() -> None:
    """A wrong split is known before the hub is asked."""
    with pytest.raises(CorpusError, match="'test' is not a part of LibriSpeech: choose one of test-clean"):
        load_corpus("librispeech", "test", 0)


# readers never fail in another way

FRAGMENTS = ('{"audio": "a.wav"}', '{"id": 1}', "file_name", "text", "speaker", "id", "null", "1e999", "NaN")
hostile = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(
        st.sampled_from([*'\0\n\r", {}[]:/', "\u2028", "\ufeff", "\\ud800", "../", "a", "a.wav", "b.wav", *FRAGMENTS]),
        max_size=40,
    ).map(lambda parts: "".join(parts).encode()),
)
names = st.sampled_from(["manifest.jsonl", "metadata.csv", "t.trans.txt"])


@settings(max_examples=EXAMPLES, deadline=None)
@given(name=names, content=hostile)
def test_any_transcript_is_lines_or_a_corpus_error(name: str, content: bytes) -> None:
    """Whatever bytes a transcript holds, the only exception is CorpusError, and what loads is well formed."""
    with tempfile.TemporaryDirectory() as folder:
        path = put(Path(folder), "a.wav", "b.wav") / name
        path.write_bytes(content)
        try:
            read_transcript(path)
            corpus = load(Path(folder))
        except CorpusError:
            return
    assert ids(corpus) == sorted(set(ids(corpus)))
    assert all(key.isprintable() for key in ids(corpus))
    assert all(isinstance(utterance.reference, str | None) for utterance in corpus.utterances)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["a.wav", "b.wav", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    records=st.lists(st.dictionaries(st.sampled_from(["id", "audio", "text", "speaker", "x"]), json_values), max_size=4)
)
def test_any_json_is_a_manifest_or_a_corpus_error(records: list[dict[str, object]]) -> None:
    """Every type in every field: accepted as it is, or refused."""
    with tempfile.TemporaryDirectory() as folder:
        manifest(put(Path(folder), "a.wav", "b.wav"), *records)
        try:
            corpus = load(Path(folder))
        except CorpusError:
            return
    assert all(isinstance(utterance, Utterance) for utterance in corpus.utterances)


# the hub


class FakeHub(http.server.BaseHTTPRequestHandler):
    """The three questions that a snapshot asks of the hub, answered from a folder; every path is noted."""

    folder: Path
    asked: list[str]
    sha = "0123456789abcdef0123456789abcdef01234567"

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        files = [file.relative_to(self.folder).as_posix() for file in sorted(self.folder.rglob("*.parquet"))]
        content, kind = b"", "application/json"
        if "/tree/" in path:
            entries = [
                {"type": "file", "path": file, "size": (self.folder / file).stat().st_size, "oid": file}
                for file in files
            ]
            content = json.dumps(entries).encode()
        elif path.startswith("/api/datasets/"):
            content = json.dumps(
                {"id": hub.HUB_ID, "sha": self.sha, "siblings": [{"rfilename": f} for f in files]}
            ).encode()
        elif "/resolve/" in path:
            content, kind = (self.folder / path.partition(f"{self.sha}/")[2]).read_bytes(), "application/octet-stream"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{abs(hash(content)):x}"')
        self.send_header("X-Repo-Commit", self.sha)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def fake_hub(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    for split in ("test-clean", "dev-clean"):
        parquet(tmp_path / "hub", split)
    asked: list[str] = []
    handler = type("Handler", (FakeHub,), {"folder": tmp_path / "hub", "asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def ask(home: Path, endpoint: str, split: str = "test-clean") -> subprocess.CompletedProcess[str]:
    """Load `librispeech` in a process whose hub is `endpoint` and whose caches are under `home`."""
    code = "from whisperbench.inputs.corpus import load_corpus\n"
    code += "from whisperbench.inputs.inspection import inspect_corpus\n"
    code += f"c = load_corpus('librispeech', {split!r}, 2)\n"
    code += "print(c.source, *(u.id for u in c.utterances), inspect_corpus(c, 1).digest)"
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(PROJECT / "src"),
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
    }
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)


@pytest.mark.usefixtures("datasets_cache")
def test_hub_fetches_one_split_and_keeps_it(tmp_path: Path, fake_hub: tuple[str, list[str]]) -> None:
    """Only the files of the wanted split travel; without the hub the copy is used, and another split is refused."""
    endpoint, asked = fake_hub
    first = ask(tmp_path / "home", endpoint)
    assert first.stdout.split()[:3] == [f"{hub.HUB_ID}@{FakeHub.sha}", *LIBRI[:2]], first.stderr
    assert {path.partition(FakeHub.sha)[2] for path in asked if "/resolve/" in path} == {"/clean/test/0000.parquet"}
    nowhere = "http://127.0.0.1:9"
    assert ask(tmp_path / "home", nowhere).stdout == first.stdout
    refused = ask(tmp_path / "home", nowhere, "dev-clean")
    assert "CorpusError" in refused.stderr
    assert "corpus=demo" in refused.stderr


def test_hub_out_of_reach_says_what_to_do(tmp_path: Path) -> None:
    """The message names the archive to fetch elsewhere, how to use it, and the corpus that needs no hub."""
    done = ask(tmp_path, "http://127.0.0.1:9")
    message = done.stderr.splitlines()[-1]
    for part in (
        "CorpusError",
        "openslr.org/resources/12/test-clean.tar.gz",
        "corpus=/path/to/LibriSpeech",
        "corpus=demo",
    ):
        assert part in message
