"""Detection of repetition loops."""

from __future__ import annotations

import pytest

from whisperbench.engines.repetition import is_repetition_loop

SENTENCE = "he hoped there would be stew for dinner turnips and carrots and bruised potatoes"


@pytest.mark.parametrize(
    "text",
    [
        SENTENCE,
        "",
        "no, no, no, no, no, no!",
        "and again and again and again, they came",
        f"{SENTENCE} {SENTENCE} {SENTENCE} he slept",
        "row, row, row your boat, row, row, row your boat, gently down the stream",
    ],
)
def test_speech_is_speech(text: str) -> None:
    """A word or a phrase that is repeated a few times is not a loop."""
    assert not is_repetition_loop(text, tokens=len(text.split()), seconds=5.0)


@pytest.mark.parametrize(
    "text",
    [
        f"{SENTENCE} {'and the rest of it ' * 4}",
        f"{SENTENCE} {'and the rest of it ' * 9} and the re",
        "i am going to " * 30,
        "Thank you. " * 20,
    ],
)
def test_a_phrase_without_end_is_a_loop(text: str) -> None:
    """A phrase is repeated four times at the end, with or without an incomplete last word."""
    assert is_repetition_loop(text, tokens=20, seconds=20.0)


def test_more_tokens_than_the_seconds_can_hold_are_a_loop() -> None:
    """Two hundred tokens are half a minute of speech, not five seconds."""
    assert is_repetition_loop(SENTENCE, tokens=200, seconds=5.0)
    assert not is_repetition_loop(SENTENCE, tokens=200, seconds=25.0)
