"""Detection of repetition loops, in which Whisper writes one phrase again and again."""

from __future__ import annotations

TOKENS_PER_SECOND = 12
"""No speech has more: read English has 3 to 4 tokens per second, the fastest speakers have 8."""

TOKENS_FREE = 24
"""Tokens that a text may have regardless of the length of its audio."""

MIN_PHRASE_WORDS = 3  # words: "no, no, no" is speech
TIMES = 4
"""A text that ends with a phrase repeated so many times is a repetition loop."""


def repeats_itself(text: str, tokens: int, seconds: float) -> bool:
    """Whether a text has more tokens than speech of `seconds` can have, or ends with a repeated phrase."""
    if tokens > TOKENS_FREE + TOKENS_PER_SECOND * seconds:
        return True
    words = text.lower().split()
    # If the model reached its token limit, the last word may be incomplete.
    return any(
        _ends_in(said, n) for said in (words, words[:-1]) for n in range(MIN_PHRASE_WORDS, len(said) // TIMES + 1)
    )


def _ends_in(words: list[str], length: int) -> bool:
    """Whether the last TIMES * length words are one phrase of that many words."""
    end = words[-TIMES * length :]
    return end[length:] == end[:-length]
