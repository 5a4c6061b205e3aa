"""Transcripts beside their references, word by word, in colour where stderr is a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from whisperbench.cli.console import draw, say, stderr
from whisperbench.compare.difference import Difference, added_errors
from whisperbench.measure.alignment import AlignedSpan, align
from whisperbench.measure.result import UtteranceResult
from whisperbench.measure.score import Score
from whisperbench.text import escape_control

SHOWN_TRANSCRIPTS = 12
"""A corpus of at most this many utterances has each transcript shown at the end."""


def to_terminal(pieces: Sequence[AlignedSpan]) -> Text:
    """`the (quick→thick) fox (jumped→) (→over)`: readable without colour, red and green with it."""
    text = Text()
    for number, piece in enumerate(pieces):
        text.append(" " if number else "")
        if piece.kind == "equal":
            text.append(escape_control(piece.reference))
            continue
        text.append("(")
        text.append(escape_control(piece.reference), style="red strike")
        text.append("→")
        text.append(escape_control(piece.hypothesis), style="green")
        text.append(")")
    return text


@draw.register
def draw_score(score: Score) -> None:
    """Print each transcript of a small corpus, aligned with its reference."""
    for each in score.results if len(score.results) <= SHOWN_TRANSCRIPTS else ():
        say(f"\n{each.utt_id}  {each.seconds:.1f} s  {each.errors} of {each.words} words wrong", "bold")
        texts = (score.normalizer(text).split() for text in (each.reference or "", each.hypothesis))
        stderr.print(to_terminal(align(*texts)))


@draw.register(tuple)
def draw_transcripts(results: tuple[UtteranceResult, ...]) -> None:
    """Print each transcript of a small corpus without references."""
    for each in results if len(results) <= SHOWN_TRANSCRIPTS else ():
        say(f"\n{each.utt_id}  {each.seconds:.1f} s  no reference", "bold")
        stderr.print(Text(each.hypothesis))


@draw.register
def draw_difference(found: Difference) -> None:
    """The utterances that changed most from one run to the other, each aligned with the reference."""
    for pair in found.utterances:
        change = added_errors(pair[0].utterance, pair[1].utterance)
        say(f"\n{escape_control(pair[0].utterance.utt_id)}  {change:+d} errors")
        for run, each in zip((found.a, found.b), pair, strict=True):
            say(f"  {escape_control(run.name)} {run.run_id[:8]}")
            stderr.print(to_terminal(each.spans))
