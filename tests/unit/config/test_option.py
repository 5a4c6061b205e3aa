"""Declarations: rules in words and as tests, texts to values and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.config.compare import CompareConfig, UploadConfig
from whisperbench.config.option import (
    BOOLEAN,
    FRACTION,
    HOST_PORT,
    LANGUAGE,
    SEED,
    TEXT,
    Options,
    Rule,
    above,
    at_least,
    between,
    labels,
    one_of,
    option,
)
from whisperbench.config.sweep import SweepConfig
from whisperbench.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Example(Options):
    """One option of each type."""

    count: int | None = option(None, at_least(1), "A number.", "Data", unset="all", label="first{}")
    share: float = option(0.5, FRACTION, "A share.", "Data", label="share{}")
    flag: bool = option(False, BOOLEAN, "A switch.", "Data", label="on")
    kind: str | None = option(None, one_of("fp8", "int4"), "A choice.", "Data", unset="none")
    name: str = option("a", TEXT, "A text.", "Data")


@pytest.mark.parametrize(
    ("rule", "accepted", "refused"),
    [
        (one_of("a", "b"), ["a", "b"], ["c", "A", ""]),
        (at_least(1), [1, 2.5], [0, float("inf"), float("nan")]),
        (above(0), [0.1], [0, -1, float("inf")]),
        (between(1, 30), [1, 30], [0, 31]),
        (FRACTION, [0.01, 1.0], [0.0, 1.01]),
        (SEED, [0, (1 << 32) - 1], [-1, 1 << 32]),
        (TEXT, ["ü x"], ["", "a\nb", "\x1b[31m"]),
        (HOST_PORT, ["10.0.0.1:6379", "host-1:80"], ["host", "none", "host:port"]),
        (LANGUAGE, ["en", "yue"], ["EN", "english", "e"]),
    ],
)
def test_rules(rule: Rule, accepted: list[Any], refused: list[Any]) -> None:
    """Each rule accepts these values and refuses those."""
    assert all(map(rule.test, accepted))
    assert not any(map(rule.test, refused))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "all", None),
        ("count", "8", 8),
        ("share", "0.92", 0.92),
        ("share", "1", 1.0),
        ("flag", "TRUE", True),
        ("flag", "false", False),
        ("kind", "none", None),
        ("kind", "fp8", "fp8"),
        ("name", "none", "none"),
    ],
)
def test_a_text_becomes_a_value(name: str, text: str, value: object) -> None:
    """The unset word is None; other options read the same word as an ordinary text."""
    assert getattr(Example.from_params({name: text}), name) == value


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"count": "0"}, "count='0' is not allowed: expected all, or a number of 1 or more."),
        ({"count": "12.5"}, "count='12.5' is not allowed: expected all, or a whole number."),
        ({"share": "much"}, "share='much' is not allowed: expected a number."),
        ({"flag": "yes"}, "flag='yes' is not allowed: expected true or false."),
        ({"kind": "fp9"}, "kind='fp9' is not allowed: expected one of none, fp8, int4. Did you mean fp8?"),
        ({"kind": "nome"}, "Did you mean none?"),
    ],
)
def test_a_wrong_text_is_refused(params: dict[str, str], message: str) -> None:
    """The message holds the option, the value, what is allowed, and the nearest choice."""
    with pytest.raises(ConfigError) as refused:
        Example.from_params(params)
    assert message in str(refused.value)


@pytest.mark.parametrize("values", [{"count": "8"}, {"share": 1}, {"flag": 1}, {"name": None}])
def test_a_value_of_another_type_is_refused(values: dict[str, Any]) -> None:
    """A record made in Python is as strict as a command line."""
    with pytest.raises(ConfigError, match="is not allowed: expected"):
        Example(**values)


def test_params_are_the_inverse_of_parsing() -> None:
    """Params are the command line's spelling; names that are not options are ignored."""
    example = Example(count=5, flag=True, kind="fp8")
    assert example.as_params() == {"count": "5", "share": "0.5", "flag": "true", "kind": "fp8", "name": "a"}
    assert Example.from_params({**example.as_params(), "gpu_name": "ignored"}) == example
    assert Example().as_params()["count"] == "all"


@pytest.mark.parametrize(("given", "stored"), [("~/wb", "/home/ann/wb"), ("wb/x", "{here}/wb/x"), ("/a/b", "/a/b")])
def test_paths_become_absolute(given: str, stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is stored, printed and passed to other processes as the directory that is used."""
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.chdir(tmp_path)
    for record, name in ((BenchmarkConfig, "results_dir"), (CompareConfig, "results_dir"), (UploadConfig, "bundles")):
        config = record.from_params({name: given})
        assert config.as_params()[name] == getattr(config, name) == stored.format(here=tmp_path)
    assert SweepConfig.from_params({"results_dir": given}).shared.results_dir == stored.format(here=tmp_path)


def test_labels_are_of_options_away_from_their_defaults() -> None:
    """In the order of the options; an option without a label has none."""
    assert labels(Example.declared(), Example(flag=True, count=8, name="b").as_params()) == {
        "count": "first8",
        "flag": "on",
    }
