"""Detection of repetition loops, in which Whisper generates one phrase over and over."""

from __future__ import annotations

TOKENS_PER_SECOND = 12
"""Upper bound for speech: read English has 3 to 4 tokens per second, the fastest speakers have 8."""

TOKENS_FREE = 24
"""Tokens that a transcript may have in addition, regardless of the length of its audio."""

MIN_PHRASE_WORDS = 3  # a shorter phrase is often repeated in speech: "no, no, no"
TIMES = 4
"""Number of repetitions at the end of a transcript that make it a repetition loop."""


def is_repetition_loop(text: str, tokens: int, seconds: float) -> bool:
    """Whether a transcript has more tokens than speech of `seconds` can have, or ends with a repeated phrase."""
    if tokens > TOKENS_FREE + TOKENS_PER_SECOND * seconds:
        return True
    words = text.lower().split()
    # If the model reached its token limit, the last word may be incomplete.
    return any(
        _ends_in(each, n) for each in (words, words[:-1]) for n in range(MIN_PHRASE_WORDS, len(each) // TIMES + 1)
    )


def _ends_in(words: list[str], length: int) -> bool:
    """Whether the last TIMES * length words are one phrase of that many words."""
    end = words[-TIMES * length :]
    return end[length:] == end[:-length]
