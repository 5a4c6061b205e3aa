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
from whisperbench.measure.result import ErrorCounts, UtteranceResult
from whisperbench.measure.score import Normalizer
from whisperbench.results.pages import render

Samples = npt.NDArray[np.float32]

SAMPLES = "samples"
MAX_TEXT_LENGTH = 4_000  # characters: 30 s of fast speech are 600
MAX_NAME_LENGTH = 80


def write_samples(
    directory: Path,
    results: Sequence[UtteranceResult],
    audio_of: Callable[[str], Samples],
    seed: int,
    normalizer: Normalizer | None = None,
    *,
    worst: int = 5,
    random: int = 5,
) -> None:
    """Write `samples.html` and one WAV per sample with its first 30 s into `directory`, which is created if absent.

    Args:
        results: results of utterances; of those without error counts only the random selection is shown.
        audio_of: returns an utterance's samples at 16 kHz by its id; called once for each sample.
        seed: the random selection depends only on it and on the number of utterances, so that runs over the same
            corpus show the same utterances, except those that are among the worst.
        normalizer: normalises the texts that are aligned; needed for results with error counts.
    """
    directory.mkdir(parents=True, exist_ok=True)
    worst_ones = _worst(results, worst)
    shuffled = np.random.default_rng(seed).permutation(len(results)).tolist()
    random_ones = sorted([index for index in shuffled if index not in worst_ones][:random])
    cards = []
    for number, index in enumerate([*worst_ones, *random_ones], 1):
        result = results[index]
        name, wav = file_name(number, result.utt_id), _wav(audio_of(result.utt_id))
        (directory / name).write_bytes(wav)
        cards.append(_card(result, name, wav, normalizer))
    sections = {"Most errors": cards[: len(worst_ones)], "Random": cards[len(worst_ones) :]}
    page = render("samples.html.jinja", shown=len(cards), utterances=f"{len(results):,}", sections=sections)
    (directory / "samples.html").write_text(page, encoding="utf-8")


def file_name(number: int, utt_id: str) -> str:
    """`01_2830-3980-0043.wav`: a name that every file system and web server accepts, whatever the id."""
    return f"{number:02d}_{after_the_number(utt_id)}"


def after_the_number(utt_id: str) -> str:
    """`2830-3980-0043.wav`: the part of a sample's name that depends on the utterance."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', utt_id)[:MAX_NAME_LENGTH]}.wav"


def _worst(results: Sequence[UtteranceResult], count: int) -> list[int]:
    """Indices of the utterances with most errors, then with the highest error rate; only of those with errors."""
    errors = {
        index: (result.counts.errors, math.inf if result.counts.percent is None else result.counts.percent)
        for index, result in enumerate(results)
        if result.counts and result.counts.errors
    }
    return sorted(errors, key=lambda index: errors[index], reverse=True)[:count]


def _wav(audio: Samples) -> bytes:
    """The first 30 s as a 16-bit WAV, which every browser plays."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.nan_to_num(audio[:WINDOW_SAMPLES]), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _card(result: UtteranceResult, file: str, wav: bytes, normalizer: Normalizer | None) -> dict[str, object]:
    """The values of an utterance for the template; `pieces` is None without a score, `note` follows them."""
    facts = [f"{result.seconds:.1f} s"]
    if result.seconds > WINDOW_SECONDS:
        facts.append(f"the first {WINDOW_SECONDS} s are here")
    if result.speaker is not None:
        facts.append(f"speaker {_cut(result.speaker, MAX_NAME_LENGTH)}")
    pieces, note = None, ""
    if result.counts and normalizer:
        facts.append(_in_words(result.counts))
        compared = result.reference or "", result.hypothesis
        pieces = align(*(normalizer(text[:MAX_TEXT_LENGTH]).split() for text in compared))
        if (longest := max(map(len, compared))) > MAX_TEXT_LENGTH:
            note = f"… ({longest:,} characters)"
    return {
        "title": _cut(result.utt_id, MAX_NAME_LENGTH),
        "facts": facts,
        "file": file,
        "wav": base64.b64encode(wav).decode(),
        "reference": None if result.reference is None else _cut(result.reference),
        "hypothesis": _cut(result.hypothesis),
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
