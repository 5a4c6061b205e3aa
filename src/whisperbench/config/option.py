"""Declaration of an option: a dataclass field whose metadata is everything that the program derives from it.

The command line, MLproject, docs/options.md, params, config digests, run names, leaderboard columns and sweeps are made
from the declarations.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

from whisperbench.errors import ConfigError

Group = Literal[
    "Model", "Data", "Engine", "Measurement", "Several GPUs", "Sweep", "Search", "Runs", "Ranking", "Gate", "Output"
]
"""Heading of an option in --help and in docs/options.md, in this order."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """Condition on a value, in words and as a test; `choices` are the values of a closed list."""

    words: str
    test: Callable[[Any], bool]
    choices: tuple[str, ...] = ()


def one_of(*choices: str) -> Rule:
    return Rule(f"one of {', '.join(choices)}", lambda value: value in choices, choices)


def at_least(minimum: float) -> Rule:
    return Rule(f"a number of {minimum} or more", lambda value: value >= minimum and math.isfinite(value))


def above(limit: float) -> Rule:
    return Rule(f"a number above {limit}", lambda value: value > limit and math.isfinite(value))


def between(low: int, high: int) -> Rule:
    return Rule(f"a whole number from {low} to {high}", lambda value: low <= value <= high)


TEXT = Rule("a non-empty text without control characters", lambda value: bool(value) and value.isprintable())
BOOLEAN = Rule("true or false", lambda value: isinstance(value, bool))
FRACTION = Rule("a number above 0 and at most 1", lambda value: 0 < value <= 1)
SEED = between(0, (1 << 32) - 1)  # the range that numpy accepts
HOST_PORT = Rule("HOST:PORT", lambda value: bool(re.fullmatch(r"[\w.-]+:\d+", value)))
LANGUAGE = Rule("a language code of two or three letters such as en", lambda v: bool(re.fullmatch("[a-z]{2,3}", v)))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option; `name` and `type` are filled in from the field by `Options.declared`."""

    default: Any
    rule: Rule
    help: str  # sentences, without the unset word
    group: Group
    unset: str | None = None  # the word for None: "auto", "all", "none", "any"
    engines: tuple[str, ...] = ()  # engines that have it; () = every engine
    identity: bool = True  # part of the config digest: two runs that differ in it are not repeats
    sweep: Literal["list", "same", "no"] = "list"  # takes a list | one value for all | is no option of a sweep
    label: str | None = None  # its part of a run's name where it differs from the default
    column: str | None = None  # heading of its leaderboard column; None: listed under "other settings"
    in_keys: bool = False  # all rows of a leaderboard share it: never listed
    common: bool = False  # shown first in --help, under "Most used"
    name: str = ""
    type: type[Any] = str

    def has(self, engine: str) -> bool:
        """Whether the option applies to an engine."""
        return not self.engines or engine in self.engines

    @property
    def default_text(self) -> str:
        return self.text(self.default)

    @property
    def choices(self) -> tuple[str, ...]:
        """Every allowed value, where they are a closed list; else empty."""
        if self.type is bool:
            return ("true", "false")
        return (*([self.unset] if self.unset else []), *self.rule.choices) if self.rule.choices else ()

    @property
    def allowed(self) -> str:
        """The allowed values in words: `all, or a number of 1 or more`."""
        if self.type is not bool and self.choices:
            return f"one of {', '.join(self.choices)}"
        return f"{self.unset}, or {self.rule.words}" if self.unset else self.rule.words

    def text(self, value: object) -> str:
        """The command line's spelling of a value: `true`, `all`, `0.92`, `large-v3`."""
        if value is None:
            return str(self.unset)
        return str(value).lower() if isinstance(value, bool) else str(value)

    def parse(self, text: str) -> Any:
        """The value of a text.

        Raises:
            ConfigError: the text is not a value of the option's type, or the rule does not allow it.
        """
        if text == self.unset:
            return None
        try:
            value = {"true": True, "false": False}[text.lower()] if self.type is bool else self.type(text)
        except (KeyError, ValueError) as error:
            words = {bool: "true or false", int: "a whole number", float: "a number"}[self.type]
            expected = f"{self.unset}, or {words}" if self.unset else words
            raise ConfigError(f"{self.name}={text!r} is not allowed: expected {expected}.") from error
        self.check(value)
        return value

    def check(self, value: object) -> None:
        """Raise a ConfigError with the nearest allowed value if `value` is not allowed."""
        if value is None and self.unset is not None:
            return
        if type(value) is not self.type:
            raise ConfigError(f"{self.name}={value!r} is not allowed: expected {self.type.__name__}.")
        if not self.rule.test(value):
            near = difflib.get_close_matches(str(value), self.choices, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{self.name}={self.text(value)!r} is not allowed: expected {self.allowed}.{hint}")


def option(default: Any, rule: Rule, help: str, group: Group, **more: Any) -> Any:
    """A dataclass field that is an option; `more` are the other fields of `Option`."""
    return field_of(Option(default=default, rule=rule, help=help, group=group, **more))


def field_of(declared: Option) -> Any:
    """The dataclass field of a declaration, for a second record that has the same option."""
    return dataclasses.field(default=declared.default, metadata={"option": declared})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Record of options.

    Raises:
        ConfigError: a value is not allowed, or two options contradict each other.
    """

    def __post_init__(self) -> None:
        for each in declared_in(type(self)).values():
            each.check(getattr(self, each.name))
        self.check_together()

    def check_together(self) -> None:
        """Raise a ConfigError if options contradict each other."""

    @classmethod
    def declared(cls) -> Mapping[str, Option]:
        """The options by name, in their order."""
        return declared_in(cls)

    @classmethod
    def takes_list(cls, name: str) -> bool:  # noqa: ARG003 - for a sweep
        """Whether an option takes several values on the command line."""
        return False

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> Self:
        """The record of these texts; names that are not options are ignored.

        Raises:
            ConfigError: a text is not allowed.
        """
        return cls(
            **{each.name: each.parse(params[each.name]) for each in declared_in(cls).values() if each.name in params}
        )

    def as_params(self) -> dict[str, str]:
        """Every option in the command line's spelling; the inverse of `from_params`."""
        return {each.name: each.text(getattr(self, each.name)) for each in declared_in(type(self)).values()}


def declared_in(record: type[Options]) -> Mapping[str, Option]:
    """The options among the fields of a record, by name."""
    if record not in _DECLARED:
        hints, found = typing.get_type_hints(record), {}
        for field in dataclasses.fields(record):
            if "option" in field.metadata:
                kinds = typing.get_args(hints[field.name]) or (hints[field.name],)  # `int | None` is an int, or unset
                kind = next(each for each in kinds if each is not types.NoneType)
                found[field.name] = dataclasses.replace(field.metadata["option"], name=field.name, type=kind)
        _DECLARED[record] = found
    return _DECLARED[record]


_DECLARED: dict[type[Any], Mapping[str, Option]] = {}


def labels(options: Mapping[str, Option], params: Mapping[str, str]) -> dict[str, str]:
    """Name to label of every option whose text differs from its default: `{"max_num_seqs": "seqs256"}`."""
    return {
        name: each.label.format(params[name])
        for name, each in options.items()
        if each.label and params.get(name, each.default_text) != each.default_text
    }
