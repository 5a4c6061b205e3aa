"""Audio files that tests make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from whisperbench.corpus.corpus import Utterance


def corpus_of(folder: Path, seconds: Sequence[float]) -> list[Utterance]:
    """Utterances of these lengths; each is noise of its own."""
    utterances = []
    for index, length in enumerate(seconds):
        path = folder / f"{index:03}.wav"
        samples = np.random.default_rng(index).uniform(-0.1, 0.1, int(length * 16_000))
        soundfile.write(path, samples, 16_000)
        utterances.append(Utterance(path.stem, path, f"word {index}", str(index % 3)))
    return utterances
