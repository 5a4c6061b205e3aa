"""What the doctor says of a corpus that can be read, and could be better."""

from __future__ import annotations

import shutil
from pathlib import Path

import whisperbench
from tests.support.corpora import put
from whisperbench.doctor import check_corpus


def test_a_corpus_without_transcripts(tmp_path: Path) -> None:
    """Throughput only."""
    clips = Path(whisperbench.__file__).parent / "data" / "demo"
    clip = next(path for path in sorted(clips.rglob("*")) if path.suffix in (".wav", ".flac", ".ogg"))
    (tmp_path / "clips").mkdir()
    shutil.copy(clip, tmp_path / "clips")
    (check,) = check_corpus(str(tmp_path / "clips"), "test-clean")
    assert (check.status, "throughput only" in check.remedy) == ("warning", True)


def test_a_corpus_with_a_doubtful_transcript(tmp_path: Path) -> None:
    """What a run would warn of is a warning here."""
    (put(tmp_path / "clips", "a.wav", "b.wav") / "t.trans.txt").write_text("a ONE\nb\n", "utf-8")
    found, doubt = check_corpus(str(tmp_path / "clips"), "test-clean")
    assert (found.status, doubt.status) == ("ok", "warning")
    assert "1 of 2 references are empty" in doubt.found
