"""What a corpus option may be, and each way that a corpus as a whole can be wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.corpora import LIBRI, SAMPLE, SAMPLE_SPLITS, ids, load, manifest, openslr, put
from whisperbench.corpus.audio import load_audio
from whisperbench.corpus.corpus import DEMO, is_copy, load_corpus
from whisperbench.corpus.inspection import inspect_corpus
from whisperbench.errors import AudioError, CorpusError

needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason="the LibriSpeech sample is not beside the project")


def test_demo_is_eight_clips_with_transcripts_and_speakers() -> None:
    """The clips in the package need no download and their digest is fixed."""
    corpus = load_corpus("demo", "test-clean", None)
    assert (corpus.name, corpus.split, len(corpus.utterances)) == ("demo", "all", 8)
    assert {utterance.speaker for utterance in corpus.utterances} == {"2830", "4507", "8455", "austen-reader"}
    assert corpus.utterances[0].reference == "EXPERIENCE PROVES THIS"
    facts = inspect_corpus(corpus, workers=2)
    assert [each.seconds for each in facts.utterances] == [1.975, 2.735, 2.59, 7.1, 2.99, 5.3, 6.05, 3.29]
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
@pytest.mark.parametrize("split", SAMPLE_SPLITS)
def test_librispeech_sample(split: str) -> None:
    """The sample's splits have the utterances and the seconds of its manifest."""
    corpus = inspect_corpus(load(SAMPLE, split), workers=2)
    lines = [json.loads(line) for line in (SAMPLE / "manifest.jsonl").read_text("utf-8").splitlines()]
    expected = sorted((line["id"], line["text"], line["duration"]) for line in lines if line["split"] == split)
    assert [(u.utt_id, u.reference) for u in corpus.utterances] == [line[:2] for line in expected]
    assert [u.seconds for u in corpus.utterances] == pytest.approx([line[2] for line in expected], abs=1e-3)


def test_folder_without_transcripts_has_no_references(tmp_path: Path) -> None:
    """Audio alone is a corpus for throughput; the id is the path, and Finder's shadow files are no audio."""
    put(tmp_path, "b.wav", "a/b.FLAC")
    (tmp_path / "._b.wav").write_bytes(b"resource fork")
    corpus = load(tmp_path)
    assert [(u.utt_id, u.reference) for u in corpus.utterances] == [("a/b", None), ("b", None)]
    assert (corpus.name, corpus.split) == (tmp_path.name, "all")


def test_limit_takes_the_first_by_id(tmp_path: Path) -> None:
    """The order is that of the ids as text, whatever the order of the transcripts."""
    put(tmp_path, "a.wav", "b.wav", "c.wav")
    manifest(tmp_path, *({"audio": f"{name}.wav", "text": "x"} for name in "cab"))
    assert ids(load(tmp_path)) == ["a", "b", "c"]
    assert ids(load(tmp_path, limit=2)) == ["a", "b"]
    with pytest.raises(CorpusError, match=r"limit=4, but .* holds 3 utterances"):
        load(tmp_path, limit=4)


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ("/no/such/folder", "does not exist. Use librispeech, demo, or a directory"),
        ("Librispeach", "Did you mean librispeech"),
        (__file__, "is a file, not a directory"),
    ],
)
def test_a_corpus_that_is_not_there(corpus: str, message: str) -> None:
    """The message names the allowed values."""
    with pytest.raises(CorpusError, match=message):
        load_corpus(corpus, "test-clean", None)


def test_a_split_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    """The message lists the splits of an OpenSLR tree, or of the folder of one split."""
    openslr(tmp_path, "dev-clean")
    for folder in (tmp_path, tmp_path / "LibriSpeech" / "dev-clean"):
        with pytest.raises(CorpusError, match=r"'test-other' is not in .*; it holds dev-clean"):
            load(folder, "test-other")


def test_a_split_is_a_directory_of_the_corpus(tmp_path: Path) -> None:
    """Its files alone are transcribed, under the ids that they have without the other directories."""
    for part in ("train", "test"):
        manifest(put(tmp_path / part, f"{part}.wav"), {"audio": f"{part}.wav", "text": "x"})
    corpus = load(tmp_path, "test")
    assert (corpus.name, corpus.split, ids(corpus)) == (tmp_path.name, "test", ["test"])
    assert corpus.utterances == load(tmp_path / "test", "test").utterances
    for whole in ("all", "test-clean"):
        assert (load(tmp_path, whole).split, ids(load(tmp_path, whole))) == ("all", ["test/test", "train/train"])
    for name in ("dev", "../corpus", "."):
        with pytest.raises(CorpusError, match=r"is not a directory in .*, which has the directories test, train"):
            load(tmp_path, name)
    manifest(tmp_path, {"audio": "test/test.wav", "text": "x"})
    with pytest.raises(CorpusError, match=r"but the transcript manifest\.jsonl lies outside of it"):
        load(tmp_path, "test")


def test_a_directory_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files would be missing without a message; the superuser may read all directories, hence the patch."""
    (put(tmp_path, "a.wav") / "closed").mkdir()
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(CorpusError, match=r"closed cannot be read: Permission denied"):
        load(tmp_path)


def test_audio_in_another_format_is_refused(tmp_path: Path) -> None:
    """Otherwise a part of the corpus would be ignored; without audio the supported endings are listed."""
    with pytest.raises(CorpusError, match=r"holds no audio.*\.flac"):
        load(tmp_path)
    (put(tmp_path, "b.wav") / "a.RA").write_bytes(b"x")
    with pytest.raises(CorpusError, match=r"a\.RA is in a format that is not supported\. Convert it"):
        load(tmp_path)


def test_ignored_files_are_a_warning(tmp_path: Path) -> None:
    """They may be audio without an ending or transcripts in another form; a README is neither."""
    put(tmp_path, "a.wav")
    (tmp_path / "t.trans.txt").write_text("a ONE\n", "utf-8")
    (tmp_path / "README.md").write_text("about", "utf-8")
    assert load(tmp_path).warnings == ()
    for name in ("b.pcm", "c.stm"):
        (tmp_path / name).write_bytes(b"x")
    (warning,) = load(tmp_path).warnings
    assert warning.startswith("2 files are ignored")
    assert warning.endswith("b.pcm.")


def test_one_id_for_two_files_is_refused(tmp_path: Path) -> None:
    """Which of a.wav and a.flac is meant cannot be guessed, with a transcript or without."""
    put(tmp_path, "a.wav", "a.flac")
    with pytest.raises(CorpusError, match="the id 'a' is already used"):
        load(tmp_path)
    (tmp_path / "t.trans.txt").write_text("a X\n", "utf-8")
    with pytest.raises(CorpusError, match=r"ambiguous \(a\.wav, a\.flac\)"):
        load(tmp_path)


@pytest.mark.parametrize("inside", ["a.wav", "folder"])
def test_links_out_of_the_corpus_are_refused(tmp_path: Path, inside: str) -> None:
    """A link to a file or a folder elsewhere leaves the folder that was named; one inside it does not."""
    outside = put(tmp_path / "outside", "a.wav")
    corpus = put(tmp_path / "corpus", "b.wav")
    (corpus / "c.wav").symlink_to(corpus / "b.wav")
    assert ids(load(corpus)) == ["b", "c"]
    (corpus / inside).symlink_to(outside / "a.wav" if inside == "a.wav" else outside)
    with pytest.raises(CorpusError, match="outside the corpus"):
        load(corpus)


@pytest.mark.parametrize("target", ["b.wav", "gone.wav"])
@pytest.mark.parametrize("name", ["b.wav", "metadata.csv"])
def test_a_link_that_leads_nowhere(tmp_path: Path, name: str, target: str) -> None:
    """The message has the target of a link to audio or to a transcript."""
    target = name if target == "b.wav" else target
    (put(tmp_path / "corpus", "a.wav") / name).symlink_to(target)
    with pytest.raises(CorpusError, match=rf"a link to {target}, which cannot be followed"):
        load(tmp_path / "corpus")


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))  # its length is limited


@pytest.mark.timeout(30)
@pytest.mark.parametrize("make", [os.mkfifo, bound_socket, Path.mkdir], ids=["fifo", "socket", "directory"])
@pytest.mark.parametrize("name", ["b.wav", "metadata.csv"])
def test_only_regular_files_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Callable[[Path], None]
) -> None:
    """Reading a FIFO would block."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "a.wav")
    make(tmp_path / name)
    if make is Path.mkdir:
        assert ids(load(tmp_path)) == ["a"]  # one more folder
        with pytest.raises(AudioError, match="it is not a regular file"):
            load_audio(tmp_path / name)
    else:
        with pytest.raises(AudioError if name == "b.wav" else CorpusError, match="cannot be read: "):
            inspect_corpus(load(tmp_path), workers=2)


@pytest.mark.parametrize(("written", "named"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_meet_in_either_unicode_form(tmp_path: Path, written: str, named: str) -> None:
    """macOS writes é as two characters, a manifest from elsewhere as one; the digest is the same for both."""
    put(tmp_path, unicodedata.normalize(written, "café/Zoé.wav"))
    (tmp_path / "t.trans.txt").write_text(unicodedata.normalize(named, "café/Zoé x\n"), "utf-8")
    corpus = load(tmp_path)
    assert ids(corpus) == [unicodedata.normalize("NFC", "café/Zoé")]
    assert load_audio(corpus.utterances[0].audio).size == 3


def test_names_that_differ_in_unicode_form_only_are_refused(tmp_path: Path) -> None:
    """File names and ids that look equal in a table are refused."""
    forms = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    put(tmp_path / "files", *(f"{form}.wav" for form in forms))
    with pytest.raises(CorpusError, match=r"differ only in their Unicode form"):
        load(tmp_path / "files")
    put(tmp_path / "ids", "a.wav", "b.wav")
    manifest(
        tmp_path / "ids", *({"id": i, "audio": a, "text": "x"} for i, a in zip(forms, ("a.wav", "b.wav"), strict=True))
    )
    with pytest.raises(CorpusError, match="is already used by"):
        load(tmp_path / "ids")


def test_empty_references_are_a_warning(tmp_path: Path) -> None:
    """They may be silence or missing transcripts, which would raise the WER."""
    put(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "t.trans.txt").write_text("a ONE\nb\nc\n", "utf-8")
    (warning,) = load(tmp_path).warnings
    assert "2 of 3 references are empty, the first is that of b." in warning
    assert load(tmp_path, limit=1).warnings == ()


def test_copies_have_marked_ids() -> None:
    """`ID`, `ID#2`, `ID#3`; an id that already ends so is refused where copies are made."""
    corpus = load_corpus("demo", "all", 2)
    assert corpus.copied(1) == corpus.utterances
    first, second = ids(corpus)
    copies = [each.utt_id for each in corpus.copied(3)]
    assert copies == [first, second, f"{first}#2", f"{second}#2", f"{first}#3", f"{second}#3"]
    assert [is_copy(utt_id) for utt_id in copies] == [False, False, True, True, True, True]
    marked = dataclasses.replace(corpus, utterances=corpus.copied(2))
    assert marked.copied(1) == marked.utterances
    with pytest.raises(CorpusError, match=r"#2' ends in a number sign"):
        marked.copied(2)
