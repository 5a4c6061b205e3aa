"""Audio files and transcript files of a directory."""

from __future__ import annotations

import csv
import io
import json
import mimetypes
import os
import posixpath
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from whisperbench.errors import CorpusError
from whisperbench.files import open_regular

SUFFIXES = (
    *(".wav", ".wave", ".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64", ".sph", ".flac"),
    *(".mp3", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".3gp", ".mov", ".aac", ".amr", ".webm", ".mka", ".mkv"),
)
"""Endings of audio files, in any case; the decoders read the content of a file, not its ending."""
TRANSCRIPTS = ("metadata.csv", "metadata.jsonl", "manifest.jsonl", "manifest.json", ".trans.txt")
"""Endings of the names of transcript files, in any case."""
UNREAD_SUFFIXES = (
    *(".csv", ".tsv", ".jsonl", ".json", ".srt", ".vtt"),
    *(".stm", ".ctm", ".trn", ".lab", ".txt", ".parquet"),
)
UNREAD_NAMES = ("text", "wav.scp")  # Kaldi's
OTHER_TEXTS = re.compile(r"(readme|licen[cs]e|copying|attribution|changelog)\b", re.IGNORECASE)
MAX_TRANSCRIPT_BYTES = 256 << 20  # a million utterances of 250 bytes

AUDIO_KEYS = ("audio", "audio_filepath", "file_name")
"""Names of the field with the audio file: this project's, NeMo's, and that of `datasets`' audiofolder."""
TEXT_KEYS = ("text", "transcription")
SEGMENT_KEYS = (("start", "end"), ("start_time", "end_time"))
"""Names of the fields with the limits of a segment in seconds, which must be as long as the audio file."""
DELIMITERS = ",;\t"
MAX_CSV_FIELD_LENGTH = 1 << 30  # Python's own limit of 128 KiB refuses a long transcript
SURROGATE = re.compile("[\\ud800-\\udfff]")  # JSON can escape half of a surrogate pair, which UTF-8 cannot encode


@dataclass(frozen=True, slots=True)
class TranscriptEntry:
    """One line of a transcript file or one row of a data set; None for a field that it does not have."""

    where: str  # "metadata.csv line 3", for messages
    id: str | None
    text: str | None  # the reference transcript
    audio: str | None = None  # relative to the folder of the transcript file
    speaker: str | None = None
    seconds: float | None = None  # the length of the audio that the transcript covers


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC): macOS writes é as two characters, other systems as one."""
    return unicodedata.normalize("NFC", name)


def audio_key(path: str) -> str:
    """The relative path of an audio file with its ending in lower case."""
    stem, suffix = posixpath.splitext(path)
    return stem + suffix.lower()


def corpus_files(root: Path) -> tuple[dict[str, Path], dict[str, Path], list[Path]]:
    """Audio files (by `audio_key`) and transcript files under `root`, by relative path in composed form, sorted.

    The third item has the other files, without hidden ones (`._x.wav`) and notes like README.  Links inside `root` are
    followed.

    Raises:
        CorpusError: a directory cannot be read; a link is broken or leaves `root`; two names differ only in their
            Unicode form or the case of their ending; an audio format or that of all transcripts is not supported.
    """
    audio: dict[str, Path] = {}
    transcripts: dict[str, Path] = {}
    others: list[Path] = []

    def refuse(error: OSError) -> None:
        raise CorpusError(f"{error.filename} cannot be read: {error.strerror}.") from error

    for folder, folders, files in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(folder, name) for name in folders):
            _check_link(path, root)
        for path in (Path(folder, name) for name in files if not name.startswith(".")):
            name, key = path.name.lower(), composed(path.relative_to(root).as_posix())
            if name.endswith(SUFFIXES):
                kept, key = audio, audio_key(key)
            elif name.endswith(TRANSCRIPTS):
                kept = transcripts
            else:
                others += [] if OTHER_TEXTS.match(name) else [path]
                continue
            _check_link(path, root)
            if key in kept:
                raise CorpusError(
                    f"{str(kept[key])!a} and {str(path)!a} differ only in their Unicode form or in the case of their "
                    "ending. Keep one of them."
                )
            kept[key] = path
    others.sort()
    for path in others:
        name = path.name.lower()
        if (mimetypes.guess_type(name)[0] or "").startswith(("audio/", "video/")):
            raise CorpusError(f"{path} is in a format that is not supported. Convert it to FLAC, or remove it.")
        if audio and not transcripts and (name in UNREAD_NAMES or name.endswith(UNREAD_SUFFIXES)):
            raise CorpusError(
                f"{path} looks like a transcript, but only names that end in {', '.join(TRANSCRIPTS)} are supported. "
                "Convert it, or remove it from the corpus to measure speed only."
            )
    return dict(sorted(audio.items())), dict(sorted(transcripts.items())), others


def _check_link(path: Path, root: Path) -> None:
    if not path.is_symlink():
        return
    if not path.exists():
        raise CorpusError(f"{path} is a link to {path.readlink()}, which cannot be followed. Repair or remove it.")
    if not path.resolve().is_relative_to(root):
        raise CorpusError(f"{path} is a link to {path.resolve()}, outside the corpus. Copy the file into the corpus.")


def read_transcript(path: Path) -> list[TranscriptEntry]:
    """The entries of one transcript file in UTF-8; blank lines are ignored.

    Raises:
        CorpusError: the file is not a regular file, too large or not UTF-8, a line is malformed, or an entry has an
            offset in its audio file; the message has the byte offset or the line number.
    """
    try:
        with open_regular(path) as file:
            content = file.read(MAX_TRANSCRIPT_BYTES + 1)
        if len(content) > MAX_TRANSCRIPT_BYTES:
            raise CorpusError(f"{path} has more than the limit of {MAX_TRANSCRIPT_BYTES:,} bytes. Split the corpus.")
        text = content.decode().removeprefix("\ufeff")
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}. "
            f"Convert it: iconv -f ENCODING -t UTF-8 {path.name}"
        ) from error
    if path.suffix.lower() != ".txt":
        records = _csv_records if path.suffix.lower() == ".csv" else _json_records
        return [_entry(where, record) for where, record in records(text, path)]
    entries = []
    for where, line in _lines(text, path):  # of the form `ID WORD WORD ...`
        key, *words = line.split(maxsplit=1)
        entries.append(TranscriptEntry(where, key, "".join(words).strip()))
    return entries


def _csv_records(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Location and fields of each row; names are folded to lower case, and surrounding blanks are removed."""
    header = text.partition("\n")[0].strip("\r")
    csv.field_size_limit(MAX_CSV_FIELD_LENGTH)
    delimiter = max(DELIMITERS, key=header.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        columns = [name.strip().casefold() for name in next(rows, ())]
        named = [name for name in columns if name]
        if not set(AUDIO_KEYS) & set(named) or len(set(named)) < len(named):
            raise CorpusError(
                f"{path} has no header: line 1 is {header!r:.200}. Add a first line with one name per "
                "column, separated like the other lines by a comma, semicolon or tab, for example file_name,text."
            )
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            where = f"{path} line {rows.line_num}"
            if len(row) != len(columns):
                raise CorpusError(
                    f"{where} has {len(row)} fields, expected {len(columns)} as in the header. Quote fields that "
                    f"contain {delimiter!r}."
                )
            yield where, {name: cell.strip() for name, cell in zip(columns, row, strict=True) if name}
    except csv.Error as error:
        raise CorpusError(f"{path} line {rows.line_num} is not CSV: {error}.") from error


def _json_records(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Location and fields of each line, which must be a JSON object."""
    for where, line in _lines(text, path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{where} is not JSON: {error}.") from error
        if not isinstance(record, dict):
            raise CorpusError(f"{where} is not a JSON object: {line!r:.200}.")
        yield where, record


def _entry(where: str, record: Mapping[str, object]) -> TranscriptEntry:
    def field(name: str, *keys: str) -> str | None:
        found = {key: record[key] for key in keys if record.get(key) is not None}
        value = next(iter(found.values()), None)
        if any(each != value for each in found.values()):
            raise CorpusError(f"{where} has different values in its fields {' and '.join(found)}. Keep one of them.")
        if name == "speaker" and type(value) is int:
            return str(value)
        if not (value is None or (isinstance(value, str) and not SURROGATE.search(value))):
            raise CorpusError(f"{where}: {name} must be a string or null, not {value!a:.200}.")
        return value

    audio = (field("audio", *AUDIO_KEYS) or "").replace("\\", "/")  # Windows separates folders by backslashes
    if not audio:
        raise CorpusError(f"{where} has none of the fields {', '.join(AUDIO_KEYS)}, but {list(record)!r:.200}.")
    if offset := _seconds(where, record, "offset"):
        raise CorpusError(
            f"{where} has offset={offset:g}. Only whole files are transcribed. Write each part to a separate file."
        )
    seconds = _seconds(where, record, "duration")
    for first, last in SEGMENT_KEYS:
        if seconds is None and (end := _seconds(where, record, last)):
            seconds = end - (_seconds(where, record, first) or 0.0)
    speaker = field("speaker", "speaker") or None
    return TranscriptEntry(where, field("id", "id") or None, field("text", *TEXT_KEYS), audio, speaker, seconds)


def _seconds(where: str, record: Mapping[str, object], key: str) -> float | None:
    try:
        return float(record.get(key) or 0) or None  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise CorpusError(f"{where}: {key} must be a number of seconds, not {record[key]!a:.200}.") from error


def _lines(text: str, path: Path) -> Iterator[tuple[str, str]]:
    """Location and content of non-blank lines; only a line feed ends a line, as in editors and `grep -n`."""
    return ((f"{path} line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
