"""Utterances of a run that can be heard beside what was made of them."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Mapping

from whisperbench.compare.difference import aligned
from whisperbench.measure.alignment import Piece
from whisperbench.results.transcripts import StoredTranscripts, StoredUtterance


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """An utterance, aligned with its reference, and its audio as the address of a WAV that is in the page."""

    utterance: StoredUtterance
    pieces: list[Piece]
    audio: str


def worst_first(stored: StoredTranscripts) -> list[str]:
    """The ids of the utterances that have errors, most errors first."""
    wrong = [u for u in stored if u.errors and u.reference is not None]
    return [u.utt_id for u in sorted(wrong, key=lambda u: (-(u.errors or 0), u.utt_id))]


def clips(stored: StoredTranscripts, wavs: Mapping[str, bytes], normalize: Callable[[str], str]) -> tuple[Clip, ...]:
    """The utterances of `wavs` (by id), in its order."""
    by_id = {u.utt_id: u for u in stored}
    return tuple(Clip(u := by_id[utt_id], aligned(u, normalize), playable(wav)) for utt_id, wav in wavs.items())


def playable(wav: bytes) -> str:
    """A WAV as an address that needs no file."""
    return f"data:audio/wav;base64,{base64.b64encode(wav).decode()}"
