"""Loading of a corpus: its utterances, checked and sorted by id."""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from whisperbench.config.benchmark import DEFAULT_SPLIT
from whisperbench.constants import WINDOW_SECONDS
from whisperbench.corpus.audio import AudioSource
from whisperbench.corpus.folder import (
    SUFFIXES,
    TEXT_KEYS,
    TRANSCRIPTS,
    TranscriptEntry,
    audio_key,
    composed,
    corpus_files,
    read_transcript,
)
from whisperbench.corpus.librispeech import FOLDERS, download, parquet_splits, parts_of, read_parquet
from whisperbench.errors import CorpusError
from whisperbench.files import FileState

DEMO = Path(__file__).parents[1] / "data" / "demo"
LIBRISPEECH_ID = re.compile(r"(\d+)-\d+-\d{4}")  # speaker, chapter, utterance
MAX_NAME_LENGTH = 255
COPY_MARK = re.compile(r"#\d+$")
WHOLE = "all"  # name of the only split of a corpus without splits


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One recording and its reference transcript, the input of an engine.

    `reference` is None without a transcript, and empty if no word is spoken.  `seconds` is the length that a manifest
    states; `inspect_corpus` compares it with the audio and replaces it by the length of the audio.  `forced_tokens` is
    the exact number of tokens to generate; random weights need it, because they do not end a transcript.
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

    `warnings` are reasons why the WER is missing or may be wrong.  `inspect_corpus` sets the other fields: `digest`
    covers ids, references and samples, `silent` holds the ids of silent utterances (`verification.verified_audio`), and
    `files` the states of the audio files at that time.
    """

    name: str
    split: str
    utterances: tuple[Utterance, ...]
    source: str
    warnings: tuple[str, ...] = ()
    digest: str = ""
    silent: tuple[str, ...] = ()
    files: Mapping[Path, FileState] = field(default_factory=dict, repr=False, compare=False)

    @property
    def utterances_over_30s(self) -> int:
        return sum((utterance.seconds or 0.0) > WINDOW_SECONDS for utterance in self.utterances)

    def copied(self, copies: int) -> tuple[Utterance, ...]:
        """The utterances, followed by copies whose ids end in `#2`, `#3`, ….

        Raises:
            CorpusError: an id already has such an ending.
        """
        if copies > 1 and (marked := [each.utt_id for each in self.utterances if is_copy(each.utt_id)]):
            raise CorpusError(
                f"The id {marked[0]!r} ends in a number sign and a number, which mark copies of an utterance. Use "
                "corpus_copies=1, or rename the utterance."
            )
        marks = ("", *(f"#{number}" for number in range(2, copies + 1)))
        return tuple(replace(each, utt_id=each.utt_id + mark) for mark in marks for each in self.utterances)


def is_copy(utt_id: str) -> bool:
    """Whether an id ends in the mark of a copy (`Corpus.copied`)."""
    return COPY_MARK.search(utt_id) is not None


def load_corpus(corpus: str, split: str, limit: int | None) -> Corpus:
    """The first `limit` utterances (None: all) of a corpus, sorted by id.

    Args:
        corpus: `librispeech` (hub), `demo`, or a directory: LibriSpeech in the layout of OpenSLR or of the hub, or
            audio files with or without transcripts.
        split: a split of LibriSpeech, or a subdirectory of another corpus; that whole corpus for "all" and for the
            default of the option.

    Raises:
        CorpusError: the corpus or the split does not exist, the limit exceeds the number of utterances, or entries
            contradict each other; the message names the file or the line.
    """
    if corpus == "librispeech":
        folder, source = download(split)
    else:
        folder = DEMO if corpus == "demo" else _existing(corpus)
        source = corpus if corpus == "demo" else str(folder)
    splits: Mapping[str, Path | list[Path]] = parquet_splits(folder) or _openslr_splits(folder)
    if splits:
        name, parts = "librispeech", [splits[part] for part in parts_of(split) if part in splits]
        if missing := [part for part in parts_of(split) if part not in splits]:
            raise CorpusError(f"split={missing[0]!r} is not in {folder}; it holds {', '.join(splits)}.")
    else:
        name, (split, directory) = folder.name, _split_of(folder, split)
        parts = [directory]
    pairs, warnings = list[tuple[TranscriptEntry, AudioSource]](), list[str]()
    for part in parts:
        if isinstance(part, Path):
            _read_folder(part, pairs, warnings)
        else:
            pairs += read_parquet(part)
    utterances = _checked_utterances(pairs, source)
    if limit is not None and limit > len(utterances):
        raise CorpusError(f"limit={limit}, but {name} ({split}) holds {len(utterances)} utterances. Use limit=all.")
    utterances = utterances[:limit]
    if empty := [utterance.utt_id for utterance in utterances if utterance.reference == ""]:
        warnings.append(
            f"{len(empty)} of {len(utterances)} references are empty, the first is that of {empty[0]}. Every word that "
            "is transcribed there counts as an error. Add the transcripts of those that contain speech."
        )
    return Corpus(name, split, tuple(utterances), source, tuple(warnings))


def _split_of(folder: Path, split: str) -> tuple[str, Path]:
    """The name and the directory of a split of a corpus that is not LibriSpeech."""
    inside = sorted(path.name for path in folder.glob("*") if path.is_dir())
    if split not in inside and split in (WHOLE, DEFAULT_SPLIT, folder.name):
        return WHOLE, folder
    if split not in inside:
        found = f"the directories {', '.join(inside[:10])}" if inside else "no directories"
        raise CorpusError(f"split={split!r} is not a directory in {folder}, which has {found}. Use split={WHOLE}.")
    if above := [path.name for path in folder.glob("*") if path.name.lower().endswith(TRANSCRIPTS)]:
        raise CorpusError(
            f"split={split!r} selects a directory in {folder}, but the transcript {above[0]} lies outside of it. Move "
            f"the transcripts of the split into its directory, or use split={WHOLE}."
        )
    return split, folder / split


def _checked_utterances(pairs: Sequence[tuple[TranscriptEntry, AudioSource]], source: str) -> list[Utterance]:
    """Utterances sorted by id; either all of them or none have references."""
    places = dict[str, str]()
    utterances = []
    for entry, audio in pairs:
        key = _checked(entry.id or "", "id", entry.where)
        if key in places:
            raise CorpusError(f"{entry.where}: the id {key!r} is already used by {places[key]}. Use unique ids.")
        places[key] = entry.where
        match = LIBRISPEECH_ID.fullmatch(key)
        speaker = _checked(entry.speaker, "speaker", entry.where) if entry.speaker else match and match[1]
        utterances.append(
            Utterance(utt_id=key, audio=audio, reference=entry.text, speaker=speaker, seconds=entry.seconds)
        )
    missing = [entry.where for entry, _ in pairs if entry.text is None]
    if 0 < len(missing) < len(pairs):
        raise CorpusError(
            f"{source}: {len(missing)} of {len(pairs)} utterances have no transcript, the first at {missing[0]}. "
            "Add the missing transcripts, or remove all of them to measure speed only."
        )
    return sorted(utterances, key=lambda utterance: utterance.utt_id)


def _checked(name: str, what: str, where: str) -> str:
    """The name in composed Unicode form; it must be safe in tables, log lines and file names."""
    if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        rule = f"expected 1 to {MAX_NAME_LENGTH} characters, none of them a control character"
        raise CorpusError(f"{where}: the {what} {name!r:.200} is not allowed: {rule}.")
    if name.startswith("/") or ".." in name.split("/"):
        raise CorpusError(f"{where}: the {what} {name!r:.200} is a path that leaves the corpus.")
    return composed(name)


def _existing(corpus: str) -> Path:
    folder = Path(corpus).expanduser()
    if folder.is_dir():
        return folder.resolve()
    near = difflib.get_close_matches(corpus.lower(), ("librispeech", "demo"), n=1)
    hint = f"Did you mean {near[0]}?" if near else "Use librispeech, demo, or a directory."
    found = "is a file, not a directory" if folder.exists() else "does not exist"
    raise CorpusError(f"corpus={corpus!r} {found}. {hint}")


def _openslr_splits(folder: Path) -> dict[str, Path]:
    """Splits of LibriSpeech by name, if `folder` is `LibriSpeech`, its parent, or the folder of one split."""
    if folder.name in FOLDERS:
        return {folder.name: folder}
    for base in (folder, folder / "LibriSpeech"):
        if parts := {name: base / name for name in FOLDERS if (base / name).is_dir()}:
            return parts
    return {}


def _read_folder(root: Path, pairs: list[tuple[TranscriptEntry, AudioSource]], warnings: list[str]) -> None:
    """Add every audio file under `root` with its transcript entry to `pairs`."""
    root = root.resolve()
    audio, transcripts, others = corpus_files(root)
    if others:
        warnings.append(
            f"{len(others)} files are ignored, because they are neither audio nor transcripts, such as {others[0]}."
        )
    if not audio:
        raise CorpusError(f"{root} holds no audio: expected files that end in {', '.join(SUFFIXES)}.")
    if not transcripts:
        pairs += [(TranscriptEntry(str(path), posixpath.splitext(name)[0], None), path) for name, path in audio.items()]
        return
    named = dict[str, str]()
    for relative, transcript in transcripts.items():
        entries = read_transcript(transcript)
        if entries and all(entry.text is None for entry in entries):
            warnings.append(f"{transcript} has no transcripts: its entries have no field {' or '.join(TEXT_KEYS)}.")
        for entry in entries:
            name = _audio_of(entry, posixpath.dirname(relative), audio, root)
            if name in named:
                raise CorpusError(
                    f"{entry.where}: the audio file {name!r} is already used by {named[name]}. Only whole files are "
                    "transcribed. Write each part to a separate file, or remove one of the entries."
                )
            named[name] = entry.where
            pairs.append((replace(entry, id=entry.id or posixpath.splitext(name)[0]), audio[name]))
    if unnamed := [name for name in audio if name not in named]:
        raise CorpusError(
            f"{root}: {len(unnamed)} of {len(audio)} audio files have no transcript, the first is {unnamed[0]!r}. "
            "Add their transcripts, or remove the files."
        )


def _audio_of(entry: TranscriptEntry, folder: str, audio: dict[str, Path], root: Path) -> str:
    """The relative path, a key of `audio`, of the file that an entry refers to."""
    by_id, name = entry.audio is None, entry.audio or entry.id or ""
    if not by_id and name.startswith("/") and name.isprintable():
        parent = Path(name).parent.resolve()  # also if the corpus is reached by a link
        if parent.is_relative_to(root):
            folder, name = "", (parent / posixpath.basename(name)).relative_to(root).as_posix()
    name = _checked(name, "id" if by_id else "audio file", entry.where)
    path = posixpath.normpath(posixpath.join(folder, name))
    candidates = [path + suffix for suffix in SUFFIXES] if by_id else [audio_key(path)]
    present = [candidate for candidate in candidates if candidate in audio]
    if not present:
        endings = f" with one of the endings {', '.join(SUFFIXES)}" if by_id else ""
        raise CorpusError(f"{entry.where}: the corpus has no audio file {path!r:.200}{endings}.")
    if len(present) > 1:
        raise CorpusError(f"{entry.where}: the audio file is ambiguous ({', '.join(present)}). Keep one of them.")
    return present[0]
