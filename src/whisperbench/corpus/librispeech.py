"""LibriSpeech from the Hugging Face hub: one split's parquet files, read row by row."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from whisperbench.corpus.folder import TranscriptEntry
from whisperbench.errors import CorpusError

HUB_ID = "openslr/librispeech_asr"
HUB_SECONDS = 10  # the hub answers within this, or we say what to do without it
FOLDERS = {
    "test-clean": "clean/test",
    "test-other": "other/test",
    "dev-clean": "clean/validation",
    "dev-other": "other/validation",
    "train-clean-100": "clean/train.100",
    "train-clean-360": "clean/train.360",
    "train-other-500": "other/train.500",
}
"""OpenSLR's names of the splits, and the folders of the hub's repository (config/split)."""

TOGETHER = {"dev": ("dev-clean", "dev-other")}
"""Splits that are several of OpenSLR's: MLPerf's development set."""

COLUMNS = ("id", "audio", "text", "speaker_id")


@dataclass(frozen=True, slots=True)
class RowAudio:
    """The audio bytes of one row, fetched from the memory-mapped data set when they are asked for."""

    name: str
    index: int
    rows: Sequence[Mapping[str, Any]] = field(repr=False, compare=False)
    files: tuple[Path, ...] = field(default=(), repr=False)

    def open(self, _mode: Literal["rb"], /) -> BinaryIO:
        content = self.rows[self.index]["audio"]["bytes"]
        if content is None:
            raise FileNotFoundError(f"row {self.index} of the data set holds no audio bytes")
        return io.BytesIO(content)


def download(split: str) -> tuple[Path, str]:
    """The folder of a snapshot that holds the wanted split, and its source as `ID@commit`.

    Only the files of that split are fetched (`load_dataset` with a config fetches all of its splits, training data
    included); without a connection the copy of an earlier run is used.

    Raises:
        CorpusError: unknown split; or no answer from the hub and no earlier copy.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    parts = parts_of(split)
    if not set(parts) <= set(FOLDERS):
        known = ", ".join((*FOLDERS, *TOGETHER))
        raise CorpusError(f"split={split!r} is not a part of LibriSpeech: choose one of {known}.")
    reason = ""
    try:
        huggingface_hub.HfApi().dataset_info(HUB_ID, timeout=HUB_SECONDS)  # a snapshot's own question has no time limit
    except Exception as error:  # of whichever HTTP library this version of the hub's client is built on
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
            f"{split} of {HUB_ID} cannot be fetched from the Hugging Face hub: {reason or _first_line(error)}. "
            f"Offline, fetch {archives} elsewhere, unpack here and give "
            "the directory: corpus=/path/to/LibriSpeech. Or try corpus=demo, the clips in the package."
        ) from error
    return Path(folder), f"{HUB_ID}@{Path(folder).name}"


def parts_of(split: str) -> tuple[str, ...]:
    """OpenSLR's splits that a split stands for: itself, or several."""
    return TOGETHER.get(split, (split,))


def parquet_splits(folder: Path) -> dict[str, list[Path]]:
    """The splits that a local copy of the hub's repository holds, each with its files in order."""
    found = {split: sorted((folder / inside).glob("*.parquet")) for split, inside in FOLDERS.items()}
    return {split: files for split, files in found.items() if files}


def read_parquet(files: Sequence[Path]) -> list[tuple[TranscriptEntry, RowAudio]]:
    """Every row of one split, its text in memory and its audio on disk.

    Raises:
        CorpusError: the files are not parquet, or lack a column of the hub's schema.
    """
    import datasets

    where = str(files[0].parent)
    try:
        rows = datasets.Dataset.from_parquet([str(path) for path in files])
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise CorpusError(f"{where} holds no parquet data set that can be read: {_first_line(error)}.") from error
    missing = [column for column in COLUMNS if column not in rows.column_names]
    if missing:
        found = ", ".join(rows.column_names)
        raise CorpusError(f"{where} lacks {', '.join(missing)} of the columns {', '.join(COLUMNS)}; it has {found}.")
    audio = rows.select_columns(["audio"]).cast_column("audio", datasets.Audio(decode=False))
    columns = (rows[name] for name in ("id", "text", "speaker_id"))
    paths = tuple(files)
    return [
        (
            TranscriptEntry(f"{where} row {index}", key, text, speaker=_text(speaker)),
            RowAudio(f"{key} in {where}", index, audio, paths),
        )
        for index, (key, text, speaker) in enumerate(zip(*columns, strict=True))
    ]


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
