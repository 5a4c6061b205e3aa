"""LibriSpeech's parquet files: download from the Hugging Face hub, and rows as utterances."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from whisperbench.corpus.folder import TranscriptEntry
from whisperbench.errors import CorpusError

HUB_ID = "openslr/librispeech_asr"
HUB_SECONDS = 10
FOLDERS = {
    "test-clean": "clean/test",
    "test-other": "other/test",
    "dev-clean": "clean/validation",
    "dev-other": "other/validation",
    "train-clean-100": "clean/train.100",
    "train-clean-360": "clean/train.360",
    "train-other-500": "other/train.500",
}
"""Split by OpenSLR's name -> folder in the hub's repository (config/split)."""

COMBINED = {"dev": ("dev-clean", "dev-other")}
"""Names for several splits: `dev` is MLPerf's development set."""

COLUMNS = {
    "id": ("(large_)?string", "text"),
    "text": ("(large_)?string|null", "text"),
    "speaker_id": ("(large_)?string|u?int[0-9]+|null", "text or integers"),
    "audio": ("struct<.*bytes: (large_)?binary.*>", "struct<bytes: binary, path: string>"),
}
"""Columns of the parquet files in the hub's schema, each with a pattern of its Arrow type, and this type in words."""


@dataclass(frozen=True, slots=True)
class RowAudio:
    """Audio bytes of one row, read on demand from the memory-mapped data set."""

    name: str
    index: int
    rows: Sequence[Mapping[str, Any]] = field(repr=False, compare=False)
    files: tuple[Path, ...] = field(default=(), repr=False)

    def open(self, _mode: Literal["rb"], /) -> BinaryIO:
        audio = self.rows[self.index]["audio"] or {}
        return io.BytesIO(audio.get("bytes") or b"")


def download(split: str) -> tuple[Path, str]:
    """The snapshot folder with the split, and its source as `ID@commit`.

    Only the files of the split are downloaded (`load_dataset` would download the training data, too).  Without a
    connection, an earlier download is used.

    Raises:
        CorpusError: the split is unknown, or the hub cannot be reached and no earlier download exists.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    parts = parts_of(split)
    if not set(parts) <= set(FOLDERS):
        known = ", ".join((*FOLDERS, *COMBINED))
        raise CorpusError(f"split={split!r} is not a split of LibriSpeech. Use one of {known}.")
    reason = ""
    try:
        huggingface_hub.HfApi().dataset_info(HUB_ID, timeout=HUB_SECONDS)  # `snapshot_download` has no timeout
    except Exception as error:  # versions of huggingface_hub raise errors of different HTTP libraries
        reason = _first_line(error)
    try:
        folder = huggingface_hub.snapshot_download(
            HUB_ID,
            repo_type="dataset",
            allow_patterns=[f"{FOLDERS[part]}/*.parquet" for part in parts],
            local_files_only=bool(reason),
        )
    except (OSError, HfHubHTTPError) as error:
        archives = " and ".join(f"https://www.openslr.org/resources/12/{part}.tar.gz" for part in parts)
        raise CorpusError(
            f"{split} of {HUB_ID} cannot be downloaded from the Hugging Face hub: {reason or _first_line(error)}. "
            f"Without a connection, download {archives} elsewhere, unpack it here, and use "
            "corpus=/path/to/LibriSpeech. Or use corpus=demo, the recordings in the package."
        ) from error
    return Path(folder), f"{HUB_ID}@{Path(folder).name}"


def parts_of(split: str) -> tuple[str, ...]:
    """OpenSLR's names of the splits that `split` stands for."""
    return COMBINED.get(split, (split,))


def parquet_splits(folder: Path) -> dict[str, list[Path]]:
    """The splits in a local copy of the hub's repository, each with its files, sorted."""
    found = {split: sorted((folder / inside).glob("*.parquet")) for split, inside in FOLDERS.items()}
    return {split: files for split, files in found.items() if files}


def read_parquet(files: Sequence[Path]) -> list[tuple[TranscriptEntry, RowAudio]]:
    """Every row of one split, with its transcript in memory and its audio on disk.

    Raises:
        CorpusError: the files are not parquet, or a column of the hub's schema is missing or has another type.
    """
    import datasets

    where = str(files[0].parent)
    try:
        rows = datasets.Dataset.from_parquet([str(path) for path in files])
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise CorpusError(f"{where} has no readable parquet data set: {_first_line(error)}.") from error
    found = {column: str(rows.data.column(column).type) for column in rows.column_names}
    for column, (pattern, expected) in COLUMNS.items():
        if not re.fullmatch(pattern, kind := found.get(column, "missing")):
            raise CorpusError(f"{where}: the column {column} is {kind}, expected {expected}.")
    audio = rows.select_columns(["audio"]).cast_column("audio", datasets.Audio(decode=False))
    stored = (*files, *(Path(file["filename"]) for file in audio.cache_files))  # `datasets` reads a copy of the files
    columns = zip(*(list(rows[name]) for name in ("id", "text", "speaker_id")), strict=True)
    return [
        (
            TranscriptEntry(f"{where} row {index}", key, text, speaker=None if speaker is None else str(speaker)),
            RowAudio(f"column audio in row {index} of {where}", index, audio, stored),
        )
        for index, (key, text, speaker) in enumerate(columns)
    ]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
