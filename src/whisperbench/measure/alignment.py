"""Word alignment of a hypothesis with its reference."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jiwer

MAX_TEXT_LENGTH = 4_000
"""Characters of a longer transcript that are aligned for a page: 30 s of fast speech are 600."""

Kind = Literal["equal", "substitute", "delete", "insert"]


@dataclasses.dataclass(frozen=True, slots=True)
class AlignedSpan:
    """Consecutive words with one kind of edit; deletions have an empty hypothesis, insertions an empty reference."""

    kind: Kind
    reference: str
    hypothesis: str


def align_words(reference: list[str], hypothesis: list[str]) -> jiwer.WordOutput:
    """jiwer's alignment of two lists of words.

    The transforms are replaced because jiwer's own refuse a reference without words.  Each utterance needs a call,
    because jiwer returns only the sums of several pairs.
    """
    return jiwer.process_words(reference, hypothesis, lambda words: [words], lambda words: [words])


def align(reference: list[str], hypothesis: list[str]) -> list[AlignedSpan]:
    """The spans of an alignment with the fewest edits, in order; words are joined by single spaces."""
    return [
        AlignedSpan(
            chunk.type,
            " ".join(reference[chunk.ref_start_idx : chunk.ref_end_idx]),
            " ".join(hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in align_words(reference, hypothesis).alignments[0]
    ]
