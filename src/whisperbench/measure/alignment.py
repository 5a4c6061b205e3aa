"""Two texts side by side, word by word: what was replaced, left out and added."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import jiwer

Kind = Literal["equal", "substitute", "delete", "insert"]


@dataclasses.dataclass(frozen=True, slots=True)
class AlignedSpan:
    """A run of words that are equal, were replaced, left out (no hypothesis) or added (no reference)."""

    kind: Kind
    reference: str
    hypothesis: str


def align_words(reference: list[str], hypothesis: list[str]) -> jiwer.WordOutput:
    """jiwer's alignment of two lists of words, or of characters; its counts are `score`'s and `align`'s.

    The lists go in as they are: jiwer's own way from text to words refuses a text without words.
    One call per pair: of many pairs jiwer counts the sum alone, and each utterance has counts of its own.
    """

    def as_one_sentence(units: list[str]) -> list[list[str]]:
        return [units]

    return jiwer.process_words(reference, hypothesis, as_one_sentence, as_one_sentence)


def align(reference_words: Sequence[str], hypothesis_words: Sequence[str]) -> list[AlignedSpan]:
    """The pieces of a least-edits alignment, in order; words are joined by single spaces."""
    reference, hypothesis = list(reference_words), list(hypothesis_words)
    return [
        AlignedSpan(
            chunk.type,
            " ".join(reference[chunk.ref_start_idx : chunk.ref_end_idx]),
            " ".join(hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in align_words(reference, hypothesis).alignments[0]
    ]
