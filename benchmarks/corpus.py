"""A corpus with the lengths of LibriSpeech test-clean, made of the demo clips: FLAC files in OpenSLR layout.

Throughput depends on the lengths and not on the words.  Each utterance is cut from the demo clips laid end to end,
starting where the previous one ended, and its reference has as many words as the real one.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from whisperbench.corpus.audio import SAMPLE_RATE, load_audio
from whisperbench.corpus.corpus import load_corpus

LENGTHS = Path(__file__).with_name("test_clean_lengths.csv")


def lengths(limit: int = 0) -> list[tuple[int, int]]:
    """(samples at 16 kHz, words) of the first `limit` utterances of test-clean; 0 = all 2,620."""
    with LENGTHS.open(encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return [(int(row["samples"]), int(row["words"])) for row in itertools.islice(rows, limit or None)]


def tiled_audio(sizes: list[int]) -> Iterator[npt.NDArray[np.float32]]:
    """Yield one array of float32 samples per size, cut one after the other from the repeated demo clips."""
    clips = np.concatenate([load_audio(u.audio) for u in load_corpus("demo", "all", None).utterances])
    start = 0
    for size in sizes:
        yield np.take(clips, np.arange(start, start + size), mode="wrap")
        start = (start + size) % len(clips)


def build_corpus(root: Path, limit: int = 0) -> Path:
    """Write the corpus below `root` (about 600 MB for all of it) unless it is there; returns `root`."""
    import soundfile

    chosen = lengths(limit)
    folder = root / "LibriSpeech" / "test-clean" / "1" / "1"
    if (folder / "1-1.trans.txt").exists():
        return root
    folder.mkdir(parents=True, exist_ok=True)
    references = [u.reference or "" for u in load_corpus("demo", "all", None).utterances]
    words = itertools.cycle(" ".join(references).upper().split())

    def write(item: tuple[int, npt.NDArray[np.float32]]) -> None:
        soundfile.write(folder / f"1-1-{item[0]:04}.flac", item[1], SAMPLE_RATE, subtype="PCM_16")

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, enumerate(tiled_audio([samples for samples, _ in chosen]))))
    lines = [f"1-1-{i:04} {' '.join(itertools.islice(words, count))}\n" for i, (_, count) in enumerate(chosen)]
    (folder / "1-1.trans.txt").write_text("".join(lines), encoding="utf-8")
    return root
