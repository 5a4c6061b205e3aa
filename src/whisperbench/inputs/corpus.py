"""A corpus option becomes utterances in a stable order."""

from __future__ import annotations

import difflib
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from whisperbench.errors import CorpusError
from whisperbench.inputs.audio import AudioSource
from whisperbench.inputs.librispeech import FOLDERS, download, parquet_splits, parts_of, read_parquet
from whisperbench.inputs.transcript_files import TranscriptEntry, is_transcript, read_transcript

T = TypeVar("T")

DEMO = Path(__file__).parents[1] / "data" / "demo"
SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a")
LIBRISPEECH_ID = re.compile(r"(\d+)-\d+-\d{4}")  # speaker, chapter, utterance
LONGEST_NAME = 255
WHOLE = "all"  # the split of a corpus that has none


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording and what is said in it."""

    id: str
    audio: AudioSource
    reference: str | None  # None: no transcript; "": nothing is said
    speaker: str | None


@dataclass(frozen=True, slots=True)
class Corpus:
    """Utterances sorted by id; `source` is a path, or a hub id and its commit."""

    name: str
    split: str
    utterances: tuple[Utterance, ...]
    source: str


def load_corpus(corpus: str, split: str, limit: int) -> Corpus:
    """The first `limit` utterances (0 = all) of a corpus, by id.

    Args:
        corpus: `librispeech` (hub), `demo`, or a directory: LibriSpeech as OpenSLR or the hub lays it out, or
            audio files with or without transcripts.
        split: a part of LibriSpeech; a corpus without parts is taken whole and its split is "all".

    Raises:
        CorpusError: nothing there, another split, a limit above the number of utterances, or a corpus that
            contradicts itself; the message names the file or the line.
    """
    if corpus == "librispeech":
        folder, source = download(split)
        return _corpus(corpus, split, _each(parquet_splits(folder), split, folder, read_parquet), source, limit)
    if corpus == "demo":
        return _corpus(corpus, WHOLE, _from_folder(DEMO), corpus, limit)
    folder = _existing(corpus)
    if parquet := parquet_splits(folder):
        return _corpus("librispeech", split, _each(parquet, split, folder, read_parquet), str(folder), limit)
    if parts := _openslr_splits(folder):
        return _corpus("librispeech", split, _each(parts, split, folder, _from_folder), str(folder), limit)
    return _corpus(folder.name, WHOLE, _from_folder(folder), str(folder), limit)


def _corpus(
    name: str, split: str, found: Iterable[tuple[TranscriptEntry, AudioSource]], source: str, limit: int
) -> Corpus:
    """Check what was found as a whole, sort it, and take the first `limit`."""
    entries: dict[str, TranscriptEntry] = {}
    utterances = []
    for entry, audio in found:
        key = _checked(entry.id or "", "id", entry.where)
        if key in entries:
            raise CorpusError(
                f"{entry.where}: the id {key!r} is taken by {entries[key].where}; every utterance needs its own."
            )
        entries[key] = entry
        utterances.append(Utterance(key, audio, entry.text, _speaker(entry, key)))
    silent = [entry.where for entry in entries.values() if entry.text is None]
    if 0 < len(silent) < len(entries):
        raise CorpusError(
            f"{source}: {len(silent)} of {len(entries)} utterances have no text, the first at {silent[0]}. "
            "Add their text, or take the text from all of them to measure speed only."
        )
    if limit > len(utterances):
        raise CorpusError(f"limit={limit}, but {name} ({split}) holds {len(utterances)} utterances; limit=0 takes all.")
    utterances.sort(key=lambda utterance: utterance.id)
    return Corpus(name, split, tuple(utterances[: limit or None]), source)


def _speaker(entry: TranscriptEntry, key: str) -> str | None:
    if entry.speaker is not None:
        return _checked(entry.speaker, "speaker", entry.where)
    match = LIBRISPEECH_ID.fullmatch(key)
    return match[1] if match else None


def _checked(name: str, what: str, where: str) -> str:
    """A name that can stand in a table, a log line and a file name."""
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        rule = f"expected 1 to {LONGEST_NAME} characters, none of them a control character"
        raise CorpusError(f"{where}: the {what} {name!r:.200} is not allowed: {rule}.")
    if name.startswith("/") or ".." in name.split("/"):
        raise CorpusError(f"{where}: the {what} {name!r:.200} looks like a path that leaves the corpus.")
    return name


def _existing(corpus: str) -> Path:
    folder = Path(corpus).expanduser()
    if folder.is_dir():
        return folder.resolve()
    near = difflib.get_close_matches(corpus.lower(), ("librispeech", "demo"), n=1)
    hint = f"Did you mean {near[0]}?" if near else "Use librispeech, demo, or a directory."
    raise CorpusError(
        f"corpus={corpus!r} {'is a file, not a directory' if folder.exists() else 'does not exist'}. {hint}"
    )


def _openslr_splits(folder: Path) -> dict[str, Path]:
    """The parts of LibriSpeech in the folder that holds `LibriSpeech/`, in that folder, or in one part's."""
    if folder.name in FOLDERS:
        return {folder.name: folder}
    for base in (folder, folder / "LibriSpeech"):
        if parts := {name: base / name for name in FOLDERS if (base / name).is_dir()}:
            return parts
    return {}


def _each(
    parts: Mapping[str, T],
    split: str,
    folder: Path,
    read: Callable[[T], Iterable[tuple[TranscriptEntry, AudioSource]]],
) -> list[tuple[TranscriptEntry, AudioSource]]:
    """What `read` finds in every part that the split stands for."""
    if missing := [part for part in parts_of(split) if part not in parts]:
        raise CorpusError(
            f"split={missing[0]!r} is not in {folder}; it holds {', '.join(parts) or 'none of LibriSpeech'}."
        )
    return [each for part in parts_of(split) for each in read(parts[part])]


def _from_folder(root: Path) -> list[tuple[TranscriptEntry, Path]]:
    """Every audio file under `root` with the transcript's entry that names it."""
    audio, transcripts = _files(root.resolve())
    if not audio:
        raise CorpusError(f"{root} holds no audio: expected files that end in {', '.join(SUFFIXES)}.")
    if not transcripts:
        return [(TranscriptEntry(str(path), posixpath.splitext(name)[0], None), path) for name, path in audio.items()]
    found, named = [], set()
    for relative, transcript in transcripts.items():
        folder = posixpath.dirname(relative)
        for entry in read_transcript(transcript):
            name = _audio_of(entry, folder, audio)
            named.add(name)
            key = entry.id or posixpath.splitext(name)[0]
            found.append((TranscriptEntry(entry.where, key, entry.text, name, entry.speaker), audio[name]))
    if unnamed := [name for name in audio if name not in named]:
        raise CorpusError(
            f"{root}: {len(unnamed)} of {len(audio)} audio files have no transcript, the first is {unnamed[0]!r}. "
            "Add them to the transcripts, or move them out."
        )
    return found


def _files(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Audio files and transcripts under `root` by relative path, sorted; hidden ones (`._x.wav`) are passed over."""
    audio: dict[str, Path] = {}
    transcripts: dict[str, Path] = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (*folders, *files):
            path = Path(folder, name)
            wanted = name in folders or name.lower().endswith(SUFFIXES) or is_transcript(name)
            if name.startswith(".") or not wanted:
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise CorpusError(
                    f"{path} is a link to {path.resolve()}, outside the corpus. Copy the file into the corpus."
                )
            if name not in folders:
                (transcripts if is_transcript(name) else audio)[path.relative_to(root).as_posix()] = path
    return dict(sorted(audio.items())), dict(sorted(transcripts.items()))


def _audio_of(entry: TranscriptEntry, folder: str, audio: dict[str, Path]) -> str:
    """The relative path of an entry's audio file; only files that were found inside the corpus count."""
    name = entry.audio if entry.audio is not None else entry.id or ""
    _checked(name, "audio file" if entry.audio is not None else "id", entry.where)
    path = posixpath.normpath(posixpath.join(folder, name))
    candidates = (path,) if entry.audio is not None else tuple(path + suffix for suffix in SUFFIXES)
    present = [candidate for candidate in candidates if candidate in audio]
    if not present:
        kinds = "" if entry.audio is not None else f" ({', '.join(SUFFIXES)})"
        raise CorpusError(
            f"{entry.where}: there is no audio file {path!r:.200}{kinds} in the corpus for this transcript."
        )
    if len(present) > 1:
        raise CorpusError(f"{entry.where}: both {' and '.join(present)} could be meant; keep one of them.")
    return present[0]
