"""Detection of repetition loops, in which Whisper generates one phrase over and over."""

from __future__ import annotations

import zlib

TOKENS_PER_SECOND = 12
"""Upper bound for speech: read English has 3 to 4 tokens per second, the fastest speakers have 8."""

TOKENS_FREE = 24
"""Tokens that a transcript may have in addition, regardless of the length of its audio."""

MAX_COMPRESSION = 2.4
"""Limit of Whisper's own check for loops (`compression_ratio_threshold` in whisper/transcribe.py).  Of 4,962 references
in six languages, LibriSpeech's test-clean and dev-clean among them, the highest ratio is 1.97."""

TIMES = 4
MIN_BYTES = 30
"""A transcript that ends with TIMES repetitions of a phrase, in at least MIN_BYTES bytes of letters, is also a loop,
because a short text does not reach MAX_COMPRESSION.  None of the 4,962 references ends with three repetitions."""


def is_repetition_loop(text: str, tokens: int, seconds: float) -> bool:
    """Whether a transcript repeats itself, or has more tokens than speech of `seconds` can have."""
    if tokens > TOKENS_FREE + TOKENS_PER_SECOND * seconds:
        return True
    if compression_ratio(text) > MAX_COMPRESSION:
        return True
    letters = "".join(filter(str.isalnum, text.lower())).encode()
    periods = range(1, len(letters) // TIMES + 1)
    return any(_repeated_end(letters, period) >= max(MIN_BYTES, TIMES * period) for period in periods)


def compression_ratio(text: str) -> float:
    """Size of a text with one byte per character, divided by its size after zlib.

    Whisper compresses the UTF-8 text (whisper/utils.py).  For ASCII that is the same; in other scripts the first bytes
    of all characters are alike, so that ordinary Thai and Hindi have ratios of 2.5 and 2.9.
    """
    numbers = {character: number for number, character in enumerate(dict.fromkeys(text))}
    encoded = bytes(numbers[character] % 256 for character in text)
    return len(encoded) / len(zlib.compress(encoded))


def _repeated_end(text: bytes, period: int) -> int:
    """Length of the longest end of `text` in which each byte equals the byte `period` before it."""
    start = len(text) - period
    while start > 0 and text[start - 1] == text[start - 1 + period]:
        start -= 1
    return len(text) - start
