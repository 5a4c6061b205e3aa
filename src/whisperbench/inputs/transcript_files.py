"""Transcript files become entries that name an utterance, its text, and perhaps its audio file and speaker.

Three formats are read: LibriSpeech's `*.trans.txt`, the `metadata.csv` of an audio folder, and `manifest.jsonl`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from whisperbench.errors import CorpusError

LONGEST_CSV_FIELD = 1 << 30  # Python's own limit of 128 KiB refuses a long transcript
HALF_CHARACTER = re.compile("[\\ud800-\\udfff]")  # JSON can escape half of a surrogate pair; UTF-8 cannot write it


@dataclass(frozen=True, slots=True)
class TranscriptEntry:
    """What a line of a transcript, or a row of a data set, says of one utterance; `None` is what it does not say."""

    where: str  # "metadata.csv line 3", for messages
    id: str | None
    text: str | None
    audio: str | None = None  # as written: relative to the transcript's folder
    speaker: str | None = None


def is_transcript(name: str) -> bool:
    """Whether a file of this name is one."""
    return name in ("metadata.csv", "manifest.jsonl") or name.endswith(".trans.txt")


def read_transcript(path: Path) -> list[TranscriptEntry]:
    """The entries of one transcript file; blank lines are passed over.

    Raises:
        CorpusError: the file is not UTF-8 (with the byte offset), or a line is malformed (with its number).
    """
    try:
        text = path.read_bytes().decode().removeprefix("\ufeff")
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        hint = f"Convert it: iconv -f ENCODING -t UTF-8 {path.name}"
        raise CorpusError(
            f"{path} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}. {hint}"
        ) from error
    readers = {"metadata.csv": _csv, "manifest.jsonl": _jsonl}
    return list(readers.get(path.name, _trans)(text, path))


def _trans(text: str, path: Path) -> Iterator[TranscriptEntry]:
    """`ID WORD WORD ...`: the audio is the file of that name beside the transcript."""
    for number, line in _numbered(text):
        utterance, _, words = line.strip().partition(" ")
        yield TranscriptEntry(f"{path} line {number}", utterance, words.strip())


def _csv(text: str, path: Path) -> Iterator[TranscriptEntry]:
    """`file_name` and `text` (or `transcription`), perhaps `id` and `speaker`; other columns are passed over."""
    csv.field_size_limit(LONGEST_CSV_FIELD)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = next(rows, [])
        if "file_name" not in columns or len(set(columns)) != len(columns):
            raise CorpusError(
                f"{path} line 1 must name its columns, each once, file_name among them: found {columns!r:.200}."
            )
        for row in rows:
            where = f"{path} line {rows.line_num}"
            if not row:
                continue
            if len(row) != len(columns):
                raise CorpusError(
                    f"{where} has {len(row)} fields, the header {len(columns)}: quote fields with a comma."
                )
            cells = dict(zip(columns, row, strict=True))
            words = cells.get("text", cells.get("transcription"))
            yield TranscriptEntry(
                where, cells.get("id") or None, words, cells["file_name"], cells.get("speaker") or None
            )
    except csv.Error as error:
        raise CorpusError(f"{path} line {rows.line_num} is not CSV: {error}.") from error


def _jsonl(text: str, path: Path) -> Iterator[TranscriptEntry]:
    """One object per line: `audio`, and perhaps `id`, `text` and `speaker`; other keys are passed over."""
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
        yield TranscriptEntry(where, fields["id"], fields["text"], record["audio"], fields["speaker"])


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, numbered from 1; only a line feed ends a line, as in editors and `grep -n`."""
    return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
