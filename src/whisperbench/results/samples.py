"""The artifact folder `samples/`: the utterances with the most errors and a fixed random selection.

`samples.html` contains transcripts and audio, because MLflow shows it in a sandboxed frame that blocks links to other
files.  The audio is also stored in WAV files.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from whisperbench.constants import WINDOW_SECONDS
from whisperbench.corpus.audio import SAMPLE_RATE, WINDOW_SAMPLES, Samples
from whisperbench.measure.alignment import MAX_TEXT_LENGTH, align
from whisperbench.measure.normalizer import Normalizer
from whisperbench.measure.result import UtteranceResult
from whisperbench.results.pages import render

SAMPLES = "samples"
WORST, RANDOM = 5, 5
"""Number of utterances with the most errors, and of randomly selected ones."""
MAX_NAME_LENGTH = 80


def write_samples(
    directory: Path,
    results: Sequence[UtteranceResult],
    audio_of: Callable[[str], Samples],
    seed: int,
    normalizer: Normalizer | None,
) -> None:
    """Write `samples.html`, and one WAV per sample with its first 30 s, into `directory`, which is created if absent.

    Args:
        results: results of one pass; without error counts only the random selection is written.
        audio_of: returns an utterance's samples at 16 kHz by its id; it is called once per sample.
        seed: seed of the random selection, which depends on nothing else but the number of utterances and those with
            the most errors, so that runs over one corpus show mostly the same utterances.
        normalizer: normalises the transcripts that are aligned; required for results with error counts.
    """
    directory.mkdir(parents=True, exist_ok=True)
    errors = {i: result.counts for i, result in enumerate(results) if result.counts and result.counts.errors}
    # Without words in the reference there is no rate; more errors come first, then the higher rate.
    worst = sorted(errors, key=lambda i: (errors[i].errors, errors[i].percent or math.inf), reverse=True)[:WORST]
    shuffled = np.random.default_rng(seed).permutation(len(results)).tolist()
    random = sorted([index for index in shuffled if index not in worst][:RANDOM])
    cards = []
    for number, index in enumerate([*worst, *random], 1):
        result = results[index]
        name, wav = f"{number:02d}_{file_suffix(result.utt_id)}", _wav(audio_of(result.utt_id))
        (directory / name).write_bytes(wav)
        cards.append(_card(result, name, wav, normalizer))
    sections = {"Most errors": cards[: len(worst)], "Random": cards[len(worst) :]}
    page = render("samples.html.jinja", shown=len(cards), utterances=f"{len(results):,}", sections=sections)
    (directory / "samples.html").write_text(page, encoding="utf-8")


def file_suffix(utt_id: str) -> str:
    """`2830-3980-0043.wav` of a sample's file `01_2830-3980-0043.wav`, in characters that every file system accepts."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', utt_id)[:MAX_NAME_LENGTH]}.wav"


def _wav(audio: Samples) -> bytes:
    """The first 30 s as a 16-bit WAV, which every browser can play."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.nan_to_num(audio[:WINDOW_SAMPLES]), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _card(result: UtteranceResult, file: str, wav: bytes, normalizer: Normalizer | None) -> dict[str, object]:
    """The template values of one utterance; `pieces` are the aligned words, or None without a score."""
    facts = [f"{result.seconds:.1f} s"]
    if result.seconds > WINDOW_SECONDS:
        facts.append(f"only the first {WINDOW_SECONDS} s are stored")
    if result.speaker is not None:
        facts.append(f"speaker {_cut(result.speaker, MAX_NAME_LENGTH)}")
    pieces, note = None, ""
    if (counts := result.counts) and normalizer:
        errors = "1 error" if counts.errors == 1 else f"{counts.errors:,} errors"
        rate = "" if counts.percent is None else f" ({counts.percent:.1f} %)"
        kinds = f"{counts.substitutions} substituted, {counts.deletions} deleted, {counts.insertions} inserted"
        facts.append(f"{errors} in {counts.units:,} {normalizer.unit}s{rate}: {kinds}")
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


def _cut(text: str, limit: int = MAX_TEXT_LENGTH) -> str:
    """`text`, or its beginning and its length, because a repetition loop can produce very long transcripts."""
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text):,} characters)"
