"""What an option's value must be: a sentence for people beside the test of it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

WINDOW_SECONDS, WINDOW_POSITIONS = 30, 1_500
"""What Whisper hears at once, and the positions of its encoder's output for it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """What an option's value must be: a sentence for people, and the test of it."""

    text: str
    holds: Callable[[Any], bool]
    choices: tuple[str, ...] = ()


def one_of(*choices: str) -> Rule:
    return Rule(f"one of {', '.join(choices)}", lambda value: value in choices, choices)


def at_least(minimum: int | float) -> Rule:
    return Rule(f"a number of {minimum} or more", lambda value: value >= minimum and math.isfinite(value))


NON_EMPTY = Rule("a non-empty text without control characters", lambda v: bool(v) and v.isprintable())

CLUSTER = Rule("none, or HOST:PORT of a Ray cluster", lambda v: bool(re.fullmatch(r"(none)?|[\w.-]+:\d+", v)))

TRUE_OR_FALSE = Rule("true or false", lambda value: isinstance(value, bool))

SEED = Rule("a whole number from 0 to 4294967295", lambda value: 0 <= value < 1 << 32)  # what numpy takes

FRACTION = Rule("a number above 0 and at most 1", lambda value: 0 < value <= 1)


def cluster_of(address: str) -> str:
    """A cluster's address; empty where none was named."""
    return "" if address == "none" else address
