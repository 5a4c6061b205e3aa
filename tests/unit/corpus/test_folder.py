"""The three formats of transcripts, and each way that one can be wrong."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.corpora import ids, load, manifest, put
from whisperbench.errors import CorpusError

EXAMPLES = 60  # raised to 10,000 by hand before a release

B_WAV = b'\n{"audio": "b.wav", "text": "y"}\n'


def test_folder_with_manifest(tmp_path: Path) -> None:
    """A manifest gives id, text and speaker; the id falls back to the file, and equal or null fields are ignored."""
    put(tmp_path, "a.wav", "deep/er/b.flac")
    manifest(
        tmp_path,
        {"id": "z", "audio": "a.wav", "text": "one", "speaker": 7},
        {"audio": "./deep/er/b.flac", "file_name": "./deep/er/b.flac", "text": "two", "transcription": None},
    )
    found = [(u.utt_id, u.reference, u.speaker) for u in load(tmp_path).utterances]
    assert found == [("deep/er/b", "two", None), ("z", "one", "7")]


@pytest.mark.parametrize("column", ["text", "transcription"])
def test_folder_with_metadata_csv(tmp_path: Path, column: str) -> None:
    """The audio folder format of `datasets`, with quotes, a line feed, a BOM and columns that mean nothing here."""
    put(tmp_path, "a.wav", "b.wav")
    text = f'\ufefffile_name,other,{column},speaker\na.wav,1,"he said ""well"",\nyes",ann\n\nb.wav,2,no,\n'
    (tmp_path / "metadata.csv").write_text(text, "utf-8")
    found = [(u.utt_id, u.reference, u.speaker) for u in load(tmp_path).utterances]
    assert found == [("a", 'he said "well",\nyes', "ann"), ("b", "no", None)]


@pytest.mark.parametrize(
    "content",
    [
        "file_name;text\na.wav;well, yes\nb.wav;no\n",
        "\ufefffile_name;text;speaker\r\na.wav;well, yes;\r\n;;\r\nb.wav;no;\r\n",
        "file_name\ttext\na.wav\twell, yes\nb.wav\tno\n",
        'File_Name,TEXT\na.wav,"well, yes"\nb.wav,no\n',
        'file_name , "text"\n a.wav , "well, yes"\nb.wav\t,\tno \n',
        ',file_name,text\n0,a.wav,"well, yes"\n1,b.wav,no\n',
        "file_name;text;;\na.wav;well, yes;;\nb.wav;no;;\n",
        '"file_name";"text"\n"a.wav";"well, yes"\n"b.wav";"no"\n',
    ],
)
def test_csv_of_spreadsheets_and_data_frames(tmp_path: Path, content: str) -> None:
    """The header decides the delimiter; a BOM, names in another case, blanks, an index and empty columns are read."""
    put(tmp_path, "a.wav", "b.wav")
    (tmp_path / "metadata.csv").write_text(content, "utf-8")
    assert [(u.utt_id, u.reference) for u in load(tmp_path).utterances] == [("a", "well, yes"), ("b", "no")]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("metadata.jsonl", [{"file_name": "a.WAV", "transcription": "one"}, {"file_name": "x/b.wav", "text": "two"}]),
        (
            "Test_Manifest.JSON",
            [
                {"audio_filepath": "a.WAV", "text": "one", "duration": 3 / 16_000, "offset": 0},
                {"audio_filepath": "x\\b.wav", "text": "two", "duration": None},
            ],
        ),
    ],
)
def test_other_json_lines(tmp_path: Path, name: str, lines: list[dict[str, object]]) -> None:
    """The layout of `datasets`, NeMo's manifests, names in capitals or with a prefix, and paths of Windows."""
    (put(tmp_path, "a.WAV", "x/b.wav") / name).write_text("\n".join(map(json.dumps, lines)), "utf-8")
    assert [(u.utt_id, u.reference) for u in load(tmp_path).utterances] == [("a", "one"), ("x/b", "two")]


@pytest.mark.parametrize("name", ["metadata.tsv", "x/a.txt", "transcripts.json", "a.SRT", "text"])
def test_a_transcript_that_is_not_read_is_refused(tmp_path: Path, name: str) -> None:
    """Otherwise the run would have no WER although the corpus has transcripts; a licence or README is ignored."""
    put(tmp_path, "a.wav", "x/b.wav")
    for other in ("README.txt", "LICENSE.TXT"):
        (tmp_path / other).write_text("about the corpus", "utf-8")
    assert ids(load(tmp_path)) == ["a", "x/b"]
    (tmp_path / name).write_text("a ONE", "utf-8")
    with pytest.raises(CorpusError, match=rf"{name} looks like a transcript, but only names that end in metadata\.csv"):
        load(tmp_path)
    (tmp_path / "t.trans.txt").write_text("a ONE\nx/b TWO\n", "utf-8")
    assert ids(load(tmp_path)) == ["a", "x/b"]


def test_absolute_paths_inside_the_corpus_are_read(tmp_path: Path) -> None:
    """Also by a link to the corpus; paths outside and the drives of Windows are refused."""
    root = put(tmp_path / "corpus", "x/a.wav")
    (tmp_path / "link").symlink_to(root)
    for path in (root / "x" / "a.wav", tmp_path / "link" / "x" / "a.WAV", root / "y" / ".." / "x" / "a.wav"):
        manifest(root, {"audio_filepath": str(path), "text": "x"})
        assert ids(load(root)) == ids(load(tmp_path / "link")) == ["x/a"]
    manifest(root, {"audio_filepath": "C:\\clips\\a.wav", "text": "x"})
    with pytest.raises(CorpusError, match=r"line 1: the corpus has no audio file 'C:/clips/a\.wav'"):
        load(root)


def test_a_transcript_beyond_the_memory_is_refused(tmp_path: Path) -> None:
    """A sparse file of 40 GB."""
    with (put(tmp_path, "a.wav") / "manifest.jsonl").open("wb") as file:
        file.truncate(40 << 30)
    with pytest.raises(CorpusError, match=r"manifest\.jsonl has more than the limit of 268,435,456 bytes"):
        load(tmp_path)


def test_a_transcript_under_another_name_is_a_warning(tmp_path: Path) -> None:
    """The run has no WER."""
    (put(tmp_path, "a.wav", "b.wav") / "metadata.csv").write_text("file_name,sentence\na.wav,x\nb.wav,y\n", "utf-8")
    corpus = load(tmp_path)
    assert [u.reference for u in corpus.utterances] == [None, None]
    (warning,) = corpus.warnings
    assert "metadata.csv has no transcripts: its entries have no field text or transcription" in warning


def test_folder_with_trans_txt(tmp_path: Path) -> None:
    """LibriSpeech's format beside any audio, also with tabs and Windows line ends; no words are an empty text."""
    put(tmp_path, "x/a.mp3", "x/b.ogg")
    (tmp_path / "x" / "x.trans.txt").write_bytes(b"a\tHELLO  THERE\r\n\r\nb\r\n")
    assert [(u.utt_id, u.reference) for u in load(tmp_path).utterances] == [("a", "HELLO  THERE"), ("b", "")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "manifest.jsonl",
            b'{"audio": "a.wav", "text": "x"}\n',
            "1 of 2 audio files have no transcript, the first is 'b.wav'",
        ),
        ("t.trans.txt", b"a X\nb Y\nc Z\n", r"t\.trans\.txt line 3: the corpus has no audio file 'c'"),
        ("metadata.csv", b"file_name,text\na.wav,x\nc.wav,y\n", r"line 3: the corpus has no audio file 'c\.wav'"),
        ("t.trans.txt", b"a X\nb \xff\n", r"not UTF-8: byte 6 is 0xff.*iconv"),
        ("manifest.jsonl", b'{"audio": "a.wav"}\n\n{"audio": \n', "line 3 is not JSON"),
        ("manifest.jsonl", b"[" * 200_000, "line 1 is not JSON"),
        (
            "manifest.jsonl",
            b'{"file": "a.wav"}',
            "line 1 has none of the fields audio, audio_filepath, file_name, but .*file",
        ),
        ("manifest.jsonl", b'{"audio": "a.wav", "text": 3}', "line 1: text must be a string or null"),
        ("manifest.jsonl", b'{"audio": "a.wav", "text": "\\ud800"}', "line 1: text must be a string or null"),
        (
            "manifest.jsonl",
            b'{"audio": "a.wav", "text": "x"}\n{"audio": "b.wav"}',
            "1 of 2 utterances have no transcript, .* line 2",
        ),
        ("manifest.jsonl", b'{"audio": "a.wav", "offset": 1.5}', r"line 1 has offset=1\.5\. Only whole files are"),
        ("manifest.jsonl", b'{"audio": "a.wav", "end": 3, "start": "x"}', "start must be a number of seconds, not 'x'"),
        ("manifest.jsonl", b'{"audio": "a.wav", "id": "1"}\n{"audio": "a.wav"}', "line 2: .* 'a.wav' is already used"),
        ("manifest.jsonl", b'{"audio": "a.wav", "file_name": "b"}', "line 1 has .* audio and file_name. Keep one"),
        (
            "manifest.jsonl",
            b'{"audio": "a.wav", "text": "x", "transcription": "y"}',
            "text and transcription. Keep one",
        ),
        ("metadata.csv", b"file_name,text\na.wav,x\nb.wav,y,z\n", "line 3 has 3 fields, expected 2 as in the header"),
        ("metadata.csv", b"name,text\na.wav,x\n", "has no header: line 1 is"),
        ("metadata.csv", b'file_name,text\na.wav,"x"y\n', "line 2 is not CSV"),
        ("manifest.jsonl", b'{"audio": "../a.wav", "text": "x"}', "leaves the corpus"),
        ("manifest.jsonl", b'{"audio": "/etc/passwd", "text": "x"}', "leaves the corpus"),
        ("manifest.jsonl", b'{"audio": "a.wav", "id": "a\\nb", "text": "x"}' + B_WAV, "control character"),
        ("manifest.jsonl", b'{"audio": "a.wav", "id": "../../a", "text": "x"}' + B_WAV, "leaves the corpus"),
        ("manifest.jsonl", b'{"audio": "a.wav", "speaker": "\\u001b[2J", "text": "x"}' + B_WAV, "control character"),
    ],
)
def test_a_transcript_that_is_wrong(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """Each mistake is named with its file and line."""
    put(tmp_path, "a.wav", "b.wav")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=message) as caught:
        load(tmp_path)
    assert len(str(caught.value)) < 2_000


def test_a_long_line_is_a_long_text(tmp_path: Path) -> None:
    """Python's own limit for a field of a CSV file is 128 KiB."""
    text = "WORD " * 200_000 + "END"
    (put(tmp_path, "a.wav") / "metadata.csv").write_text(f"file_name,text\na.wav,{text}\n", "utf-8")
    assert load(tmp_path).utterances[0].reference == text


FRAGMENTS = ('{"audio": "a.wav"}', '{"id": 1}', "file_name", "text", "speaker", "id", "null", "1e999", "NaN")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["a.wav", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(["id", "audio", "text", "speaker", "offset", "duration"])
hostile = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(
        st.sampled_from([*'\0\n\r", {}[]:/', "\u2028", "\ufeff", "\\ud800", "../", "a", "a.wav", "b.wav", *FRAGMENTS]),
        max_size=40,
    ).map(lambda parts: "".join(parts).encode()),
    st.lists(st.dictionaries(fields, json_values), max_size=4).map(
        lambda records: "\n".join(map(json.dumps, records)).encode()
    ),
)


@settings(max_examples=2 * EXAMPLES, deadline=None)
@given(name=st.sampled_from(["manifest.jsonl", "metadata.csv", "t.trans.txt"]), content=hostile)
def test_any_transcript_is_lines_or_a_corpus_error(name: str, content: bytes) -> None:
    """For any bytes and any JSON values the only exception is CorpusError, and what loads is well formed."""
    with tempfile.TemporaryDirectory() as folder:
        (put(Path(folder), "a.wav", "b.wav") / name).write_bytes(content)
        try:
            corpus = load(Path(folder))
        except CorpusError:
            return
    assert ids(corpus) == sorted(set(ids(corpus)))
    assert all(key.isprintable() for key in ids(corpus))
    assert all(isinstance(utterance.reference, str | None) for utterance in corpus.utterances)
