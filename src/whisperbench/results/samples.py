"""The artifact folder `samples/`: the utterances with most errors and a fixed random selection, as audio and text.

`samples.html` is one self-contained page.  MLflow shows it in a sandboxed frame, in which links to files beside it do
not work.  The audio is therefore in the page, and also beside it as WAV.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from whisperbench.constants import WINDOW_SECONDS
from whisperbench.corpus.audio import SAMPLE_RATE, WINDOW_SAMPLES
from whisperbench.measure.alignment import align
from whisperbench.measure.score import ErrorCounts, ScoredUtterance
from whisperbench.measure.timing import Transcript
from whisperbench.results.pages import render

Samples = npt.NDArray[np.float32]

SAMPLES = "samples"
MAX_TEXT_LENGTH = 4_000  # characters: 30 s of fast speech are 600
MAX_NAME_LENGTH = 80


def write_samples(
    directory: Path,
    utterances: Sequence[ScoredUtterance | Transcript],
    audio_of: Callable[[str], Samples],
    seed: int,
    *,
    worst: int = 5,
    random: int = 5,
) -> None:
    """Write `samples.html` and one WAV per sample with its first 30 s into `directory`, which is created if absent.

    Args:
        utterances: scored ones, or transcripts without a score, of which only the random selection is shown.
        audio_of: returns an utterance's samples at 16 kHz by its id; called once for each sample.
        seed: the random selection depends only on it and on the number of utterances, so that runs over the same
            corpus show the same utterances, except those that are among the worst.
    """
    directory.mkdir(parents=True, exist_ok=True)
    worst_ones = _worst(utterances, worst)
    shuffled = np.random.default_rng(seed).permutation(len(utterances)).tolist()
    random_ones = sorted([index for index in shuffled if index not in worst_ones][:random])
    cards = []
    for number, index in enumerate([*worst_ones, *random_ones], 1):
        utterance = utterances[index]
        name, wav = file_name(number, utterance.utt_id), _wav(audio_of(utterance.utt_id))
        (directory / name).write_bytes(wav)
        cards.append(_card(utterance, name, wav))
    sections = {"Most errors": cards[: len(worst_ones)], "Random": cards[len(worst_ones) :]}
    page = render("samples.html.jinja", shown=len(cards), utterances=f"{len(utterances):,}", sections=sections)
    (directory / "samples.html").write_text(page, encoding="utf-8")


def file_name(number: int, utt_id: str) -> str:
    """`01_2830-3980-0043.wav`: a name that every file system and web server accepts, whatever the id."""
    return f"{number:02d}_{after_the_number(utt_id)}"


def after_the_number(utt_id: str) -> str:
    """`2830-3980-0043.wav`: the part of a sample's name that depends on the utterance."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', utt_id)[:MAX_NAME_LENGTH]}.wav"


def _worst(utterances: Sequence[ScoredUtterance | Transcript], count: int) -> list[int]:
    """Indices of the utterances with most errors, then with the highest error rate; only of those with errors."""
    errors = {
        index: (utterance.counts.errors, math.inf if utterance.counts.percent is None else utterance.counts.percent)
        for index, utterance in enumerate(utterances)
        if isinstance(utterance, ScoredUtterance) and utterance.counts.errors
    }
    return sorted(errors, key=lambda index: errors[index], reverse=True)[:count]


def _wav(audio: Samples) -> bytes:
    """The first 30 s as a 16-bit WAV, which every browser plays."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.nan_to_num(audio[:WINDOW_SAMPLES]), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _card(utterance: ScoredUtterance | Transcript, file: str, wav: bytes) -> dict[str, object]:
    """The values of an utterance for the template; `pieces` is None without a score, `note` follows them."""
    facts = [f"{utterance.seconds:.1f} s"]
    if utterance.seconds > WINDOW_SECONDS:
        facts.append(f"the first {WINDOW_SECONDS} s are here")
    if utterance.speaker is not None:
        facts.append(f"speaker {_cut(utterance.speaker, MAX_NAME_LENGTH)}")
    pieces, note = None, ""
    if isinstance(utterance, ScoredUtterance):
        facts.append(_in_words(utterance.counts))
        compared = utterance.reference_normalized, utterance.hypothesis_normalized
        pieces = align(*(text[:MAX_TEXT_LENGTH].split() for text in compared))
        if (longest := max(map(len, compared))) > MAX_TEXT_LENGTH:
            note = f"… ({longest:,} characters)"
    return {
        "title": _cut(utterance.utt_id, MAX_NAME_LENGTH),
        "facts": facts,
        "file": file,
        "wav": base64.b64encode(wav).decode(),
        "reference": None if utterance.reference is None else _cut(utterance.reference),
        "hypothesis": _cut(utterance.hypothesis),
        "pieces": pieces,
        "note": note,
    }


def _in_words(counts: ErrorCounts) -> str:
    rate = "" if counts.percent is None else f" ({counts.percent:.1f} %)"
    kinds = f"{counts.substitutions} substituted, {counts.deletions} deleted, {counts.insertions} inserted"
    errors = "1 error" if counts.errors == 1 else f"{counts.errors:,} errors"
    return f"{errors} in {counts.words:,} words{rate}: {kinds}"


def _cut(text: str, limit: int = MAX_TEXT_LENGTH) -> str:
    """`text`, or its beginning and its length: the page must open whatever a model has written."""
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text):,} characters)"
