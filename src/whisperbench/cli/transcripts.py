"""Transcripts on stderr, aligned with their references word by word."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from whisperbench.cli.console import say, stderr
from whisperbench.compare.difference import Difference, added_errors
from whisperbench.measure.alignment import AlignedSpan, align
from whisperbench.measure.result import UtteranceResult
from whisperbench.measure.score import Score
from whisperbench.text import escape_control, printable


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


def draw_transcripts(found: Score | Sequence[UtteranceResult]) -> None:
    """Print each transcript, aligned with its reference if it was scored."""
    for each in found.results if isinstance(found, Score) else found:
        if isinstance(found, Score):
            errors = f"{each.errors} of {each.units} {found.normalizer.unit}s wrong"
            texts = (found.normalizer(text).split() for text in (each.reference or "", each.hypothesis))
            text = to_terminal(align(*texts))
        else:
            errors, text = "no reference", Text(printable(each.hypothesis))
        say(f"\n{each.utt_id}  {each.seconds:.1f} s  {errors}", "bold")
        stderr.print(text)


def draw_difference(found: Difference) -> None:
    """Print the utterances whose number of errors changed most, aligned with the reference."""
    for pair in found.utterances:
        change = added_errors(pair[0].utterance, pair[1].utterance)
        say(f"\n{pair[0].utterance.utt_id}  {change:+d} errors")
        for run, each in zip((found.a, found.b), pair, strict=True):
            say(f"  {run.name} {run.run_id[:8]}")
            stderr.print(to_terminal(each.spans))
