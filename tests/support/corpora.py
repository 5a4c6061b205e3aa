"""Small corpora on disk: in OpenSLR's layout, in that of the hub's parquet files, and as folders of audio."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import soundfile

from whisperbench.corpus.audio import SAMPLE_RATE
from whisperbench.corpus.corpus import DEMO, Corpus, load_corpus
from whisperbench.corpus.librispeech import FOLDERS

SAMPLE = Path(
    os.environ.get("WHISPERBENCH_SAMPLE", Path(__file__).resolve().parents[3] / "shared" / "librispeech-sample")
)
"""60 real utterances outside the repository; tests take them through the fixture `librispeech_sample`."""
DEMO_TRANSCRIPTS: dict[str, str] = json.loads(
    (Path(__file__).resolve().parents[1] / "data" / "demo_transcripts.json").read_text(encoding="utf-8")
)
"""The texts of the demo clips, by utterance: tiny.en, vLLM 0.32, float32."""
SAMPLE_SPLITS = ("test-clean", "test-other", "dev-clean")

LIBRI = ("2830-3980-0043", "4507-16021-0012", "8455-210777-0068")


def load(folder: Path, split: str = "test-clean", limit: int | None = None) -> Corpus:
    """`load_corpus` of a directory."""
    return load_corpus(str(folder), split, limit)


def ids(corpus: Corpus) -> list[str]:
    """The ids in their order."""
    return [utterance.utt_id for utterance in corpus.utterances]


def put(folder: Path, *names: str) -> Path:
    """Audio files of three samples each."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.array([0, 1, 2], np.int16), SAMPLE_RATE)
    return folder


def manifest(folder: Path, *records: object) -> None:
    """A `manifest.jsonl` of these lines."""
    (folder / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")


def openslr(root: Path, split: str = "test-clean") -> Path:
    """The demo's LibriSpeech clips in OpenSLR's layout, under `root`/LibriSpeech."""
    texts = {utterance.utt_id: utterance.reference for utterance in load_corpus("demo", "all", None).utterances}
    for key in LIBRI:
        speaker, chapter, _ = key.split("-")
        folder = root / "LibriSpeech" / split / speaker / chapter
        folder.mkdir(parents=True)
        shutil.copy(DEMO / f"{key}.flac", folder)
        (folder / f"{speaker}-{chapter}.trans.txt").write_text(f"{key} {texts[key]}\n", "utf-8")
    return root


def parquet(root: Path, split: str = "test-clean") -> Path:
    """The demo's LibriSpeech clips in the hub's layout and schema."""
    import datasets

    utterances = [u for u in load_corpus("demo", "all", None).utterances if u.utt_id in LIBRI][::-1]
    columns = {
        "file": [u.audio.name for u in utterances],
        "audio": [{"bytes": (DEMO / u.audio.name).read_bytes(), "path": u.audio.name} for u in utterances],
        "text": [u.reference for u in utterances],
        "speaker_id": [int(u.speaker or 0) for u in utterances],
        "chapter_id": [int(u.utt_id.split("-")[1]) for u in utterances],
        "id": [u.utt_id for u in utterances],
    }
    rows = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))
    folder = root / FOLDERS[split]
    folder.mkdir(parents=True)
    rows.to_parquet(folder / "0000.parquet")
    return root
