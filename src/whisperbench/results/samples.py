"""The artifact folder `samples/`: the worst utterances and a fixed random few, to listen to and to read.

`samples.html` is one self-contained page.  MLflow shows it in a sandboxed frame, where links to the
files beside it lead nowhere: so the audio is in the page, and beside it as WAV for everything else.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from whisperbench.config.option import WINDOW_SECONDS
from whisperbench.corpus.audio import SAMPLE_RATE, WINDOW_SAMPLES
from whisperbench.measure.alignment import AlignedSpan, align
from whisperbench.measure.result import ErrorCounts, UtteranceResult
from whisperbench.measure.score import Normalizer
from whisperbench.results.pages import render

Samples = npt.NDArray[np.float32]

SAMPLES = "samples"
MAX_TEXT_LENGTH = 4_000  # characters: 30 s of fast speech are 600
MAX_NAME_LENGTH = 80


@dataclasses.dataclass(frozen=True, slots=True)
class Card:
    """What the page shows of one utterance; `pieces` is None where there is nothing to compare, `note` follows them."""

    title: str
    facts: list[str]
    file: str
    wav: str
    reference: str | None
    hypothesis: str
    pieces: list[AlignedSpan] | None
    note: str


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
    """Write `samples.html` and one WAV per sample, the first 30 s of it, into `directory` (made if absent).

    Args:
        results: of utterances; without error counts only the random few are chosen.
        audio_of: an utterance's samples at 16 kHz by its id; called once for each sample.
        seed: the random few depend on it and on the number of utterances only, so that runs over one
            corpus show the same ones, save those that are among the worst.
        normalizer: what the shown texts are compared by; needed for results with error counts.
    """
    directory.mkdir(parents=True, exist_ok=True)
    worst_ones = _worst(results, worst)
    shuffled = np.random.default_rng(seed).permutation(len(results)).tolist()
    random_ones = [index for index in shuffled if index not in worst_ones][:random]
    sections: dict[str, list[Card]] = {"Most errors": [], "Random": []}
    number = 0
    for heading, chosen in zip(sections, (worst_ones, sorted(random_ones)), strict=True):
        for index in chosen:
            number += 1
            result = results[index]
            name, wav = file_name(number, result.utt_id), _wav(audio_of(result.utt_id))
            (directory / name).write_bytes(wav)
            sections[heading].append(_card(result, name, wav, normalizer))
    page = render("samples.html.jinja", shown=number, utterances=f"{len(results):,}", sections=sections)
    (directory / "samples.html").write_text(page, encoding="utf-8")


def file_name(number: int, utt_id: str) -> str:
    """`01_2830-3980-0043.wav`: any id, as a name that every file system and web server takes."""
    return f"{number:02d}_{after_the_number(utt_id)}"


def after_the_number(utt_id: str) -> str:
    """`2830-3980-0043.wav`: what tells of a sample's name which utterance it is."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', utt_id)[:MAX_NAME_LENGTH]}.wav"


def _worst(results: Sequence[UtteranceResult], count: int) -> list[int]:
    """Positions of the utterances with most errors, then with the highest rate; only those that have errors."""
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


def _card(result: UtteranceResult, name: str, wav: bytes, normalizer: Normalizer | None) -> Card:
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
    return Card(
        title=_cut(result.utt_id, MAX_NAME_LENGTH),
        facts=facts,
        file=name,
        wav=base64.b64encode(wav).decode(),
        reference=None if result.reference is None else _cut(result.reference),
        hypothesis=_cut(result.hypothesis),
        pieces=pieces,
        note=note,
    )


def _in_words(counts: ErrorCounts) -> str:
    rate = "" if counts.percent is None else f" ({counts.percent:.1f} %)"
    kinds = f"{counts.substitutions} substituted, {counts.deletions} deleted, {counts.insertions} inserted"
    errors = "1 error" if counts.errors == 1 else f"{counts.errors:,} errors"
    return f"{errors} in {counts.words:,} words{rate}: {kinds}"


def _cut(text: str, longest: int = MAX_TEXT_LENGTH) -> str:
    """`text`, or its beginning and how long it is: a page must open whatever a model wrote."""
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text):,} characters)"
