"""LibriSpeech's parquet files: download from the Hugging Face hub, and rows as utterances."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
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

TEXT_COLUMNS = {"id": (str,), "text": (str, NoneType), "speaker_id": (str, int, NoneType)}
"""Columns of the parquet files in the hub's schema, besides `audio`, with the types of their values."""


@dataclass(frozen=True, slots=True)
class RowAudio:
    """Audio bytes of one row, read on demand from the memory-mapped data set."""

    name: str
    index: int
    rows: Sequence[Mapping[str, Any]] = field(repr=False, compare=False)
    files: tuple[Path, ...] = field(default=(), repr=False)

    def open(self, _mode: Literal["rb"], /) -> BinaryIO:
        content = self.rows[self.index]["audio"]["bytes"]
        return io.BytesIO(content)


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
        CorpusError: the files are not parquet, or lack a column of the hub's schema.
    """
    import datasets

    where = str(files[0].parent)
    try:
        rows = datasets.Dataset.from_parquet([str(path) for path in files])
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise CorpusError(f"{where} has no readable parquet data set: {_first_line(error)}.") from error
    missing = [column for column in (*TEXT_COLUMNS, "audio") if column not in rows.column_names]
    if missing:
        found = ", ".join(rows.column_names)
        raise CorpusError(f"{where} lacks the columns {', '.join(missing)} and has {found}.")
    _require_audio_bytes(rows.data.column("audio"), where)
    audio = rows.select_columns(["audio"]).cast_column("audio", datasets.Audio(decode=False))
    stored = (*files, *(Path(file["filename"]) for file in audio.cache_files))  # `datasets` reads a copy of the files
    try:
        columns = [list(rows[name]) for name in TEXT_COLUMNS]
    except ValueError as error:
        raise CorpusError(f"{where}: one of the columns {', '.join(TEXT_COLUMNS)} is not text: {error}.") from error
    pairs = []
    for index, values in enumerate(zip(*columns, strict=True)):
        at = f"{where} row {index}"
        for value, (name, kinds) in zip(values, TEXT_COLUMNS.items(), strict=True):
            if not isinstance(value, kinds):
                expected = " or ".join(kind.__name__.replace("NoneType", "null") for kind in kinds)
                raise CorpusError(f"{at}: the column {name} holds {value!r:.100}, expected {expected}.")
        key, text, speaker = values
        entry = TranscriptEntry(at, key, text, speaker=None if speaker is None else str(speaker))
        pairs.append((entry, RowAudio(f"{key} in {where}", index, audio, stored)))
    return pairs


def _require_audio_bytes(column: Any, where: str) -> None:
    """Require that every row holds the bytes of an audio file."""
    import pyarrow as pa
    import pyarrow.compute

    kind, row = column.type, 0
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        content = pa.compute.struct_field(column, "bytes")
        if pa.types.is_binary(content.type) or pa.types.is_large_binary(content.type):
            row = pa.compute.index(pa.compute.is_null(content), value=True).as_py()
            kind = "no bytes"
    if row >= 0 and len(column):
        raise CorpusError(
            f"{where} row {row}: the column audio holds {kind}, expected the bytes of an audio file "
            "(struct<bytes: binary, path: string>)."
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
