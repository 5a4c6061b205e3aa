"""A corpus option becomes utterances in a stable order."""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from whisperbench.constants import WINDOW_SECONDS
from whisperbench.corpus.audio import AudioSource
from whisperbench.corpus.folder import (
    SUFFIXES,
    TranscriptEntry,
    TranscriptFile,
    audio_key,
    composed,
    corpus_files,
    read_transcript,
)
from whisperbench.corpus.librispeech import FOLDERS, download, parquet_splits, parts_of, read_parquet
from whisperbench.errors import CorpusError
from whisperbench.files import broken_link

T = TypeVar("T")

DEMO = Path(__file__).parents[1] / "data" / "demo"
LIBRISPEECH_ID = re.compile(r"(\d+)-\d+-\d{4}")  # speaker, chapter, utterance
MAX_NAME_LENGTH = 255
COPY_MARK = re.compile(r"#\d+$")
WHOLE = "all"  # the split of a corpus that has none


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One recording and its reference transcript: what a corpus holds and what an engine is given.

    `reference` is None without a transcript, and empty where no word is spoken.  `inspect_corpus` sets `seconds`.
    `forced_tokens` set: generate exactly that many (random weights never end a transcript by themselves).
    """

    utt_id: str
    audio: AudioSource
    reference: str | None
    speaker: str | None
    seconds: float | None = None
    forced_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Corpus:
    """Utterances sorted by id; `source` is a path, or a hub id and its commit.

    `understood` describes how an ambiguous transcript file was read, `doubts` what makes a WER missing or wrong.
    `inspect_corpus` sets `digest`, which covers ids, references and samples.
    """

    name: str
    split: str
    utterances: tuple[Utterance, ...]
    source: str
    doubts: tuple[str, ...] = ()
    digest: str = ""

    @property
    def has_references(self) -> bool:
        return all(utterance.reference is not None for utterance in self.utterances)

    @property
    def utterances_over_30s(self) -> int:
        return sum((utterance.seconds or 0.0) > WINDOW_SECONDS for utterance in self.utterances)

    def copied(self, copies: int) -> tuple[Utterance, ...]:
        """The utterances and, behind them, copies whose ids end in `#2`, `#3`, ….

        Raises:
            CorpusError: an id already ends so.
        """
        if copies > 1 and (marked := [each.utt_id for each in self.utterances if is_copy(each.utt_id)]):
            raise CorpusError(
                f"The id {marked[0]!r} ends in a number sign and a number, which mark the copies of an utterance. "
                "Transcribe this corpus once, or rename the utterance."
            )
        marks = ("", *(f"#{number}" for number in range(2, copies + 1)))
        return tuple(replace(each, utt_id=each.utt_id + mark) for mark in marks for each in self.utterances)


def is_copy(utt_id: str) -> bool:
    """Whether an id ends in the mark of a copy (`Corpus.copied`)."""
    return COPY_MARK.search(utt_id) is not None


@dataclass(frozen=True, slots=True)
class _Found:
    """Entries with their audio, in any order and not checked as a whole; `doubts` as in a corpus."""

    pairs: Sequence[tuple[TranscriptEntry, AudioSource]]
    doubts: tuple[str, ...] = ()


def load_corpus(corpus: str, split: str, limit: int | None) -> Corpus:
    """The first `limit` utterances (None: all) of a corpus, by id.

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
        return _corpus(corpus, split, _each(parquet_splits(folder), split, folder, _from_parquet), source, limit)
    if corpus == "demo":
        return _corpus(corpus, WHOLE, _from_folder(DEMO), corpus, limit)
    folder = _existing(corpus)
    if parquet := parquet_splits(folder):
        return _corpus("librispeech", split, _each(parquet, split, folder, _from_parquet), str(folder), limit)
    if parts := _openslr_splits(folder):
        return _corpus("librispeech", split, _each(parts, split, folder, _from_folder), str(folder), limit)
    return _corpus(folder.name, WHOLE, _from_folder(folder), str(folder), limit)


def _corpus(name: str, split: str, found: _Found, source: str, limit: int | None) -> Corpus:
    """Check what was found as a whole, sort it, and take the first `limit`."""
    entries: dict[str, TranscriptEntry] = {}
    utterances = []
    for entry, audio in found.pairs:
        key = _checked(entry.id or "", "id", entry.where)
        if key in entries:
            raise CorpusError(
                f"{entry.where}: the id {key!r} is taken by {entries[key].where}; every utterance needs its own."
            )
        entries[key] = entry
        utterances.append(Utterance(utt_id=key, audio=audio, reference=entry.text, speaker=_speaker(entry, key)))
    silent = [entry.where for entry in entries.values() if entry.text is None]
    if 0 < len(silent) < len(entries):
        raise CorpusError(
            f"{source}: {len(silent)} of {len(entries)} utterances have no text, the first at {silent[0]}. "
            "Add their text, or take the text from all of them to measure speed only."
        )
    if limit is not None and limit > len(utterances):
        raise CorpusError(f"limit={limit}, but {name} ({split}) holds {len(utterances)} utterances. Use limit=all.")
    utterances.sort(key=lambda utterance: utterance.utt_id)
    taken = tuple(utterances[:limit])
    doubts = list(found.doubts) if silent else []
    if empty := [entries[utterance.utt_id].where for utterance in taken if utterance.reference == ""]:
        doubts.append(
            f"{len(empty)} of {len(taken)} references are empty, the first at {empty[0]}: each word that the model "
            "writes there is an error. Where something is said, add its text."
        )
    return Corpus(name, split, taken, source, tuple(doubts))


def _speaker(entry: TranscriptEntry, key: str) -> str | None:
    if entry.speaker is not None:
        return _checked(entry.speaker, "speaker", entry.where)
    match = LIBRISPEECH_ID.fullmatch(key)
    return match[1] if match else None


def _checked(name: str, what: str, where: str) -> str:
    """A name that can stand in a table, a log line and a file name, in one Unicode form on every system."""
    if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        rule = f"expected 1 to {MAX_NAME_LENGTH} characters, none of them a control character"
        raise CorpusError(f"{where}: the {what} {name!r:.200} is not allowed: {rule}.")
    if name.startswith("/") or ".." in name.split("/"):
        raise CorpusError(f"{where}: the {what} {name!r:.200} looks like a path that leaves the corpus.")
    return composed(name)


def _existing(corpus: str) -> Path:
    folder = Path(corpus).expanduser()
    if folder.is_dir():
        return folder.resolve()
    near = difflib.get_close_matches(corpus.lower(), ("librispeech", "demo"), n=1)
    hint = f"Did you mean {near[0]}?" if near else "Use librispeech, demo, or a directory."
    link = broken_link(folder)
    found = f"is {link}" if link else "is a file, not a directory" if folder.exists() else "does not exist"
    raise CorpusError(f"corpus={corpus!r} {found}. {hint}")


def _openslr_splits(folder: Path) -> dict[str, Path]:
    """The parts of LibriSpeech in the folder that holds `LibriSpeech/`, in that folder, or in one part's."""
    if folder.name in FOLDERS:
        return {folder.name: folder}
    for base in (folder, folder / "LibriSpeech"):
        if parts := {name: base / name for name in FOLDERS if (base / name).is_dir()}:
            return parts
    return {}


def _each(parts: Mapping[str, T], split: str, folder: Path, read: Callable[[T], _Found]) -> _Found:
    """What `read` finds in every part that the split stands for."""
    if missing := [part for part in parts_of(split) if part not in parts]:
        raise CorpusError(
            f"split={missing[0]!r} is not in {folder}; it holds {', '.join(parts) or 'none of LibriSpeech'}."
        )
    found = [read(parts[part]) for part in parts_of(split)]
    return _Found(
        [pair for each in found for pair in each.pairs],
        tuple(sentence for each in found for sentence in each.doubts),
    )


def _from_parquet(files: Sequence[Path]) -> _Found:
    return _Found(read_parquet(files))


def _from_folder(root: Path) -> _Found:
    """Every audio file under `root` with the transcript's entry that names it."""
    audio, transcripts = corpus_files(root.resolve())
    if not audio:
        raise CorpusError(f"{root} holds no audio: expected files that end in {', '.join(SUFFIXES)}.")
    if not transcripts:
        return _Found(
            [(TranscriptEntry(str(path), posixpath.splitext(name)[0], None), path) for name, path in audio.items()]
        )
    pairs, named, read = list[tuple[TranscriptEntry, AudioSource]](), set[str](), list[TranscriptFile]()
    for relative, transcript in transcripts.items():
        folder = posixpath.dirname(relative)
        read.append(read_transcript(transcript))
        for entry in read[-1].entries:
            name = _audio_of(entry, folder, audio)
            named.add(name)
            key = entry.id or posixpath.splitext(name)[0]
            pairs.append((TranscriptEntry(entry.where, key, entry.text, name, entry.speaker), audio[name]))
    if unnamed := [name for name in audio if name not in named]:
        raise CorpusError(
            f"{root}: {len(unnamed)} of {len(audio)} audio files have no transcript, the first is {unnamed[0]!r}. "
            "Add them to the transcripts, or move them out."
        )
    return _Found(pairs, tuple(file.doubt for file in read if file.doubt))


def _audio_of(entry: TranscriptEntry, folder: str, audio: dict[str, Path]) -> str:
    """The relative path of an entry's audio file; only files that were found inside the corpus count."""
    name = entry.audio if entry.audio is not None else entry.id or ""
    name = _checked(name, "audio file" if entry.audio is not None else "id", entry.where)
    path = posixpath.normpath(posixpath.join(folder, name))
    candidates = (audio_key(path),) if entry.audio is not None else tuple(path + suffix for suffix in SUFFIXES)
    present = [candidate for candidate in candidates if candidate in audio]
    if not present:
        kinds = "" if entry.audio is not None else f" ({', '.join(SUFFIXES)})"
        raise CorpusError(
            f"{entry.where}: there is no audio file {path!r:.200}{kinds} in the corpus for this transcript."
        )
    if len(present) > 1:
        raise CorpusError(f"{entry.where}: both {' and '.join(present)} could be meant; keep one of them.")
    return present[0]
