"""Audio files that tests make."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from whisperbench.corpus.corpus import Utterance


def corpus_of(folder: Path, seconds: Sequence[float], *, inspected: bool = False) -> list[Utterance]:
    """Utterances of these lengths, which are known where the corpus was inspected; each is noise of its own."""
    utterances = []
    for index, length in enumerate(seconds):
        path = folder / f"{index:03}.wav"
        samples = np.random.default_rng(index).uniform(-0.1, 0.1, int(length * 16_000))
        soundfile.write(path, samples, 16_000)
        utterance = Utterance(utt_id=path.stem, audio=path, reference=f"word {index}", speaker=str(index % 3))
        utterances.append(dataclasses.replace(utterance, seconds=length) if inspected else utterance)
    return utterances


class Bytes:
    """An AudioSource in memory, named `row 7`."""

    name = "row 7"

    def __init__(self, content: bytes) -> None:
        self.content = content

    def open(self, _mode: str, /) -> io.BytesIO:
        return io.BytesIO(self.content)
