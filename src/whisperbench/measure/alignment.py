"""Two texts side by side, word by word: the differences that a person sees on the terminal and in HTML.

Both renderings (HTML here, the terminal in `flows.terminal`) are safe to show: control characters, terminal escapes
and marks that reorder text appear as what they are (`\\x1b`), and HTML is escaped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import jiwer

from whisperbench.text import escape

Kind = Literal["equal", "substitute", "delete", "insert"]


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """A run of words that are equal, were replaced, left out (no hypothesis) or added (no reference)."""

    kind: Kind
    reference: str
    hypothesis: str


def compare(reference: list[str], hypothesis: list[str]) -> jiwer.WordOutput:
    """jiwer's alignment of two lists of words, or of characters; its counts are `score`'s and `align`'s.

    The lists go in as they are: jiwer's own way from text to words refuses a text without words.
    """

    def as_one_sentence(units: list[str]) -> list[list[str]]:
        return [units]

    return jiwer.process_words(reference, hypothesis, as_one_sentence, as_one_sentence)


def align(reference_words: Sequence[str], hypothesis_words: Sequence[str]) -> list[Piece]:
    """The pieces of a least-edits alignment, in order; words are joined by single spaces."""
    reference, hypothesis = list(reference_words), list(hypothesis_words)
    return [
        Piece(
            chunk.type,
            " ".join(reference[chunk.ref_start_idx : chunk.ref_end_idx]),
            " ".join(hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in compare(reference, hypothesis).alignments[0]
    ]


def to_html(pieces: Sequence[Piece]) -> str:
    """Escaped HTML: `<del class="delete">`, `<ins class="insert">`, both in `<mark class="substitute">`."""
    return " ".join(map(_piece_to_html, pieces))


def _piece_to_html(piece: Piece) -> str:
    left_out, added = escape(piece.reference), escape(piece.hypothesis)
    match piece.kind:
        case "equal":
            return left_out
        case "delete":
            return f'<del class="delete">{left_out}</del>'
        case "insert":
            return f'<ins class="insert">{added}</ins>'
        case "substitute":
            return f'<mark class="substitute"><del>{left_out}</del> <ins>{added}</ins></mark>'
