"""Declarations of options, which are dataclass fields with an `Option` in their metadata.

The command line, MLproject, docs/options.md, params, config digests, run names, leaderboard columns and sweeps are
derived from the declarations.  Only the values of `param="resolved"` come from `results.run_data.run_params`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from whisperbench.errors import ConfigError

Group = Literal[
    "Model", "Data", "Engine", "Measurement", "Several GPUs", "Sweep", "Search", "Runs", "Ranking", "Gate", "Output"
]
"""Heading of an option in --help and in docs/options.md, in this order."""

Logged = Literal["always", "resolved", "changed", "never"]
"""When an option is a param of a run: always, as requested; always, as resolved by the run; only if it differs from its
default; or never.  config.json has all options as requested."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """Condition on a value, in words and as a test; `choices` are the allowed values if they are listed."""

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
PATH = Rule("a path without control characters", TEXT.test)
"""A path as text; a record expands `~` and makes it absolute, so that every stored or printed path is absolute."""


def absolute(path: str) -> str:
    """An absolute path, with `~` expanded; links and `..` stay, because together they may mean another directory."""
    return str(Path(os.path.expanduser(path)).absolute())  # noqa: PTH111 - Path.expanduser raises for unknown users


BOOLEAN = Rule("true or false", lambda value: isinstance(value, bool))
FRACTION = Rule("a number above 0 and at most 1", lambda value: 0 < value <= 1)
SEED = between(0, (1 << 32) - 1)  # the range that numpy accepts
HOST_PORT = Rule("HOST:PORT", lambda value: bool(re.fullmatch(r"[\w.-]+:\d+", value)))
LANGUAGE = Rule("a language code of two or three letters such as en", lambda v: bool(re.fullmatch("[a-z]{2,3}", v)))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option; `declared_in` sets `name` and `type` from the dataclass field."""

    default: Any
    rule: Rule
    help: str  # sentences that do not explain `unset`
    group: Group
    unset: str | None = None  # the word for None: "auto", "all", "none", "any"
    engines: tuple[str, ...] = ()  # engines that support it; () = every engine
    identity: bool = True  # part of the config digest, which repeats share
    param: Logged = "changed"
    sweep: Literal["list", "same", "no"] = "list"  # a list | one value for all configurations | not in a sweep
    label: str | None = None  # part of a run's name if the value is not the default
    column: str | None = None  # heading of the leaderboard column; None: in "other settings"
    in_signature: bool = False  # part of a run's signature if the value is not the default
    in_keys: bool = False  # equal in all rows of a leaderboard, so not listed
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
        """All allowed values if the rule lists them, else empty."""
        return (*([self.unset] if self.unset else []), *self.rule.choices) if self.rule.choices else ()

    @property
    def allowed(self) -> str:
        """The allowed values in words: `all, or a number of 1 or more`."""
        words = f"one of {', '.join(self.choices)}" if self.choices else self.rule.words
        return f"{self.unset}, or {words}" if self.unset and not self.choices else words

    def text(self, value: object) -> str:
        """A value as written on the command line, such as `true`, `all`, `0.92` or `large-v3`."""
        if value is None:
            return str(self.unset)
        return str(value).lower() if isinstance(value, bool) else str(value)

    def parse(self, text: str) -> Any:
        """Parse a value as written on the command line.

        Raises:
            ConfigError: the value has another type, or the rule does not allow it.
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
    """The dataclass field of a declaration, for further records with the same option."""
    return dataclasses.field(default=declared.default, metadata={"option": declared})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Base class of records of options.

    Raises:
        ConfigError: a value is not allowed, or options contradict each other.
    """

    def __post_init__(self) -> None:
        for each in declared_in(type(self)).values():
            value = getattr(self, each.name)
            each.check(value)
            if each.rule is PATH:
                object.__setattr__(self, each.name, absolute(value))
        self.check_together()

    def check_together(self) -> None:
        """Raise a ConfigError if options contradict each other."""

    @classmethod
    def declared(cls) -> Mapping[str, Option]:
        """The options by name, in the order of their declaration."""
        return declared_in(cls)

    @classmethod
    def takes_list(cls, each: Option) -> bool:
        """Whether an option takes several values on the command line, as options of the benchmark do in a sweep."""
        return each.sweep == "list" and each.name not in declared_in(cls)

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> Self:
        """Parse options as written on the command line; names that are not options are ignored.

        Raises:
            ConfigError: a value is not allowed.
        """
        return cls(
            **{each.name: each.parse(params[each.name]) for each in declared_in(cls).values() if each.name in params}
        )

    def as_params(self) -> dict[str, str]:
        """Every option as written on the command line; the inverse of `from_params`."""
        return {each.name: each.text(getattr(self, each.name)) for each in declared_in(type(self)).values()}

    def changed(self) -> dict[str, str]:
        """The options that differ from their defaults, as written on the command line."""
        defaults = type(self)().as_params()  # with absolute paths
        return {name: text for name, text in self.as_params().items() if text != defaults[name]}


def declared_in(record: type[Options]) -> Mapping[str, Option]:
    """The options among the fields of a record, by name."""
    if record not in _DECLARED:
        hints, found = typing.get_type_hints(record), {}
        for field in dataclasses.fields(record):
            if "option" in field.metadata:
                kind = (*typing.get_args(hints[field.name]), hints[field.name])[0]  # int of `int | None`
                found[field.name] = dataclasses.replace(field.metadata["option"], name=field.name, type=kind)
        _DECLARED[record] = found
    return _DECLARED[record]


_DECLARED: dict[type[Any], Mapping[str, Option]] = {}


def labels(options: Mapping[str, Option], params: Mapping[str, str]) -> dict[str, str]:
    """Labels of the options that differ from their defaults, by name: `{"max_num_seqs": "seqs256"}`."""
    return {
        name: each.label.format(params[name])
        for name, each in options.items()
        if each.label and params.get(name, each.default_text) != each.default_text
    }
