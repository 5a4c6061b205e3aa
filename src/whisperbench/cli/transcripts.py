"""Transcripts on stderr, aligned with their references word by word."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from whisperbench.cli.console import draw, say, stderr
from whisperbench.compare.difference import Difference, added_errors
from whisperbench.measure.alignment import AlignedSpan, align
from whisperbench.measure.result import UtteranceResult
from whisperbench.measure.score import Score
from whisperbench.text import escape_control


def to_terminal(spans: Sequence[AlignedSpan]) -> Text:
    """`the (quick→thick) fox (jumped→) (→over)`, with the reference in red and the hypothesis in green."""
    text = Text()
    for index, span in enumerate(spans):
        text.append(" " if index else "")
        reference, hypothesis = escape_control(span.reference), escape_control(span.hypothesis)
        if span.kind == "equal":
            text.append(reference)
        else:
            text.append_tokens([("(", ""), (reference, "red strike"), ("→", ""), (hypothesis, "green"), (")", "")])
    return text


@draw.register
def draw_score(score: Score) -> None:
    """Print each transcript, aligned with its reference."""
    unit = score.normalizer.unit
    for each in score.results:
        say(f"\n{each.utt_id}  {each.seconds:.1f} s  {each.errors} of {each.units} {unit}s wrong", "bold")
        texts = (score.normalizer(text).split() for text in (each.reference or "", each.hypothesis))
        stderr.print(to_terminal(align(*texts)))


@draw.register(tuple)
def draw_transcripts(results: tuple[UtteranceResult, ...]) -> None:
    """Print each transcript of a corpus without references."""
    for each in results:
        say(f"\n{each.utt_id}  {each.seconds:.1f} s  no reference", "bold")
        say(each.hypothesis)


@draw.register
def draw_difference(found: Difference) -> None:
    """Print the utterances whose number of errors changed most, aligned with the reference."""
    for pair in found.utterances:
        change = added_errors(pair[0].utterance, pair[1].utterance)
        say(f"\n{pair[0].utterance.utt_id}  {change:+d} errors")
        for run, each in zip((found.a, found.b), pair, strict=True):
            say(f"  {run.name} {run.run_id[:8]}")
            stderr.print(to_terminal(each.spans))
