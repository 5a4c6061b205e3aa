"""`low..high:step`: the numbers that a search goes through."""

from __future__ import annotations

import dataclasses
from typing import Any

from whisperbench.errors import ConfigError
from whisperbench.options.record import parse, text_of
from whisperbench.options.rules import Rule


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """`low..high` or `low..high:step`: what a search may choose from, both ends included.

    Whole numbers without a step are searched on a logarithmic scale.
    """

    low: float
    high: float
    step: float | None

    def nearest(self, value: float) -> float:
        """The choice next to a value."""
        inside = max(self.low, min(self.high, value))
        if self.step is None:
            return inside
        return self.low + min(round((inside - self.low) / self.step), (self.high - self.low) // self.step) * self.step


def parse_range(name: str, text: str, kind: type[Any], rule: Rule) -> Range:
    """The range that an option's text names.

    Raises:
        ConfigError: the text is no range, or an end of it is not allowed for the option.
    """
    limits, _, step_text = text.partition(":")
    low_text, _, high_text = limits.partition("..")
    low, high = (parse(part.strip(), kind, name) for part in (low_text, high_text))
    step = parse(step_text.strip(), kind, name) if step_text else None
    if low >= high or (step is not None and step <= 0):
        raise ConfigError(f"{name}={text!r} is not allowed: expected low..high or low..high:step with low below high.")
    for end in (low, high):
        if not rule.holds(end):
            raise ConfigError(f"{name}={text!r} is not allowed: {text_of(end)} is not {rule.text}.")
    if kind is int and step is None and low < 1:
        raise ConfigError(
            f"{name}={text!r} is not allowed: 0 is not on a logarithmic scale; start above it or give a step."
        )
    return Range(low, high, step)
