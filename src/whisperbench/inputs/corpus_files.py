"""The files of a corpus's folder: regular ones, inside it, each under one name whatever system wrote that name."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from whisperbench.errors import CorpusError
from whisperbench.files import broken_link
from whisperbench.inputs.transcript_files import is_transcript

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a")


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC): macOS writes é as two characters, other systems as one."""
    return unicodedata.normalize("NFC", name)


def corpus_files(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Audio files and transcripts under `root` by relative path in composed form, sorted.

    Hidden files (`._x.wav`) are passed over; links are followed where they stay inside.

    Raises:
        CorpusError: a link that leads nowhere or out of the folder, or two names that differ in Unicode's form only.
    """
    audio: dict[str, Path] = {}
    transcripts: dict[str, Path] = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (*folders, *files):
            path = Path(folder, name)
            wanted = name in folders or name.lower().endswith(SUFFIXES) or is_transcript(name)
            if name.startswith(".") or not wanted:
                continue
            if path.is_symlink():
                _check_link(path, root)
            if name not in folders:
                kept, key = transcripts if is_transcript(name) else audio, composed(path.relative_to(root).as_posix())
                if key in kept:
                    raise CorpusError(
                        f"{str(kept[key])!a} and {str(path)!a} are one name in two Unicode forms. Keep one of them."
                    )
                kept[key] = path
    return dict(sorted(audio.items())), dict(sorted(transcripts.items()))


def _check_link(path: Path, root: Path) -> None:
    if link := broken_link(path):
        raise CorpusError(f"{path} is {link}. Mend the link, or remove it.")
    if not path.resolve().is_relative_to(root):
        raise CorpusError(f"{path} is a link to {path.resolve()}, outside the corpus. Copy the file into the corpus.")
