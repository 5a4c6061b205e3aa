"""Audio files and transcript files of a directory."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from whisperbench.errors import CorpusError
from whisperbench.files import broken_link, open_regular

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


MAX_CSV_FIELD_LENGTH = 1 << 30  # Python's own limit of 128 KiB refuses a long transcript
CSV_COLUMNS = ("file_name", "text", "transcription", "id", "speaker")
DELIMITERS = ",;\t|"  # of them a spreadsheet takes the one that its language asks for
HALF_CHARACTER = re.compile("[\\ud800-\\udfff]")  # JSON can escape half of a surrogate pair; UTF-8 cannot write it


@dataclass(frozen=True, slots=True)
class TranscriptEntry:
    """What a line of a transcript, or a row of a data set, says of one utterance; `None` is what it does not say."""

    where: str  # "metadata.csv line 3", for messages
    id: str | None
    text: str | None
    audio: str | None = None  # as written: relative to the transcript's folder
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class TranscriptFile:
    """What one file says; `understood` is how it was read where that is not plain, `doubt` why it has no texts."""

    entries: tuple[TranscriptEntry, ...]
    understood: str = ""
    doubt: str = ""


def is_transcript(name: str) -> bool:
    """Whether a file of this name is one."""
    return name in ("metadata.csv", "manifest.jsonl") or name.endswith(".trans.txt")


def read_transcript(path: Path) -> TranscriptFile:
    """The entries of one transcript file, UTF-8 or marked as UTF-16; blank lines are passed over.

    Raises:
        CorpusError: it is no regular file, not UTF-8 (with the byte offset), or a line is malformed (with its number).
    """
    encoding = "UTF-8"
    try:
        with open_regular(path) as file:
            content = file.read()
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            encoding = "UTF-16"
        text = content.decode(encoding).removeprefix("\ufeff")
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        hint = f"Convert it: iconv -f ENCODING -t UTF-8 {path.name}"
        raise CorpusError(
            f"{path} is not {encoding}: byte {error.start} is {error.object[error.start]:#04x}. {hint}"
        ) from error
    readers = {"metadata.csv": _csv, "manifest.jsonl": _jsonl}
    return readers.get(path.name, _trans)(text, path)


def _trans(text: str, path: Path) -> TranscriptFile:
    """`ID WORD WORD ...`: the audio is the file of that name beside the transcript."""
    entries = []
    for number, line in _numbered(text):
        utterance, _, words = line.strip().partition(" ")
        entries.append(TranscriptEntry(f"{path} line {number}", utterance, words.strip()))
    return TranscriptFile(tuple(entries))


def _csv(text: str, path: Path) -> TranscriptFile:
    """`file_name` and `text` (or `transcription`), perhaps `id` and `speaker`; other columns are passed over.

    As spreadsheets and data frames write it: commas, semicolons, tabs or bars between fields, names of columns in any
    case, and blanks around names and cells, which do not count.
    """
    csv.field_size_limit(MAX_CSV_FIELD_LENGTH)
    delimiter, header = _delimiter_and_header(text, path)
    columns = [name.strip().casefold() for name in header]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    entries = []
    try:
        next(rows)
        for row in rows:
            where = f"{path} line {rows.line_num}"
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(columns):
                raise CorpusError(
                    f"{where} has {len(row)} fields, the header {len(columns)}: quote fields that hold {delimiter!r}."
                )
            cells = {name: cell.strip() for name, cell in zip(columns, row, strict=True) if name in CSV_COLUMNS}
            words = cells.get("text", cells.get("transcription"))
            entries.append(
                TranscriptEntry(where, cells.get("id") or None, words, cells["file_name"], cells.get("speaker") or None)
            )
    except csv.Error as error:
        raise CorpusError(f"{path} line {rows.line_num} is not CSV: {error}.") from error
    renamed = [
        f"{name!r} is {known}" for name, known in zip(header, columns, strict=True) if name != known in CSV_COLUMNS
    ]
    if delimiter != ",":
        renamed.insert(0, f"{delimiter!r} separates fields")
    doubt = "" if {"text", "transcription"} & set(columns) else f"{path} has no column text or transcription: {header}"
    return TranscriptFile(tuple(entries), f"{path}: {', '.join(renamed)}" if renamed else "", doubt)


def _delimiter_and_header(text: str, path: Path) -> tuple[str, list[str]]:
    """What separates fields is what makes `file_name` one of the first line's; that line's fields with it."""
    for delimiter in DELIMITERS:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
        header: list[str] = []
        with contextlib.suppress(csv.Error):  # quotes that end before another separator
            header = next(rows, [])
        known = [name for found in header if (name := found.strip().casefold()) in CSV_COLUMNS]
        if "file_name" in known and len(set(known)) == len(known):
            return delimiter, header
    raise CorpusError(
        f"{path} line 1 must name its columns, each once, file_name among them, with one of {DELIMITERS!r} between "
        f"them: found {text.partition(chr(10))[0]!r:.200}."
    )


def _jsonl(text: str, path: Path) -> TranscriptFile:
    """One object per line: `audio`, and perhaps `id`, `text` and `speaker`; other keys are passed over."""
    entries, keys = [], set[str]()
    for number, line in _numbered(text):
        where = f"{path} line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{where} is not JSON: {error}.") from error
        if not isinstance(record, dict) or not isinstance(record.get("audio"), str):
            raise CorpusError(f'{where} is not an object with an "audio" file: {line!r:.200}.')
        fields = {key: record.get(key) for key in ("id", "text", "speaker")}
        if isinstance(fields["speaker"], int) and not isinstance(fields["speaker"], bool):
            fields["speaker"] = str(fields["speaker"])
        for key, value in fields.items():
            if not (value is None or (isinstance(value, str) and not HALF_CHARACTER.search(value))):
                raise CorpusError(f"{where}: {key} must be a text or null, not {value!a:.200}.")
        keys.update(record)
        entries.append(TranscriptEntry(where, fields["id"], fields["text"], record["audio"], fields["speaker"]))
    doubt = "" if "text" in keys else f'{path} has no "text" in any line: {sorted(keys)}'
    return TranscriptFile(tuple(entries), doubt=doubt)


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, numbered from 1; only a line feed ends a line, as in editors and `grep -n`."""
    return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
