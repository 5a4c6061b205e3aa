"""Options: what a value must be, how it is parsed, and the base class of the option records."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

from whisperbench.errors import ConfigError

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


T = TypeVar("T", str, int, float, bool)


def option(default: Any, rule: Rule, text: str) -> Any:
    """A dataclass field that is also an option: default, rule and help text in one place."""
    return dataclasses.field(default=default, metadata={"rule": rule, "help": text})


def kind_of(field: dataclasses.Field[Any]) -> type[Any]:
    """str, int, float or bool: the type of an option's default."""
    return type(field.default)


def text_of(value: object) -> str:
    """The command line's spelling of a value: `true` and `false`, 0.92, large-v3."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse(text: str, kind: type[T], name: str) -> T:
    """`text` as a value of `kind`, or a ConfigError that names the option."""
    try:
        if kind is bool:
            return kind({"true": True, "false": False}[text.lower()])
        return kind(text)
    except (ValueError, KeyError) as error:
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ConfigError(f"{name}={text!r} is not allowed: expected {wanted}.") from error


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A record of options.

    Raises:
        ConfigError: a value is not allowed; the message names the option, the value, what is allowed, and the
            nearest choice.  Or two options contradict each other.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, rule = getattr(self, field.name), field.metadata["rule"]
            if type(value) is not kind_of(field):
                raise ConfigError(f"{field.name}={value!r} is not allowed: expected {kind_of(field).__name__}.")
            if not rule.holds(value):
                near = difflib.get_close_matches(str(value), rule.choices, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ConfigError(f"{field.name}={text_of(value)!r} is not allowed: expected {rule.text}.{hint}")
        self.check_together()

    def check_together(self) -> None:
        """Refuse options that contradict each other."""

    def as_params(self) -> dict[str, str]:
        """Every option as the text that a command line would carry."""
        return {field.name: text_of(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> Self:
        """The inverse of `as_params`; names that are not options are ignored."""
        fields = (field for field in dataclasses.fields(cls) if field.name in params)
        return cls(**{field.name: parse(params[field.name], kind_of(field), field.name) for field in fields})
