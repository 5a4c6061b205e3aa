"""A text that cannot be: Whisper caught in a loop, in every mode of running it."""

from __future__ import annotations

TOKENS_PER_SECOND = 12
"""More than anybody says: read English takes 3 to 4 tokens a second, the fastest talkers 8."""

TOKENS_FREE = 24
"""What a text may have however short its audio is."""

MIN_PHRASE_WORDS = 3  # words: "no, no, no" is speech
TIMES = 4
"""A phrase that stands so often at the end, and nothing behind it, is no speech."""


def repeats_itself(text: str, tokens: int, seconds: float) -> bool:
    """Whether a text has more tokens than its seconds can hold, or ends in one phrase again and again."""
    if tokens > TOKENS_FREE + TOKENS_PER_SECOND * seconds:
        return True
    words = text.lower().split()
    # Where the model ran out of tokens the last word may be cut.
    return any(
        _ends_in(said, n) for said in (words, words[:-1]) for n in range(MIN_PHRASE_WORDS, len(said) // TIMES + 1)
    )


def _ends_in(words: list[str], length: int) -> bool:
    """Whether the last TIMES * length words are one phrase of that many words."""
    end = words[-TIMES * length :]
    return end[length:] == end[:-length]
