"""Declarations: rules in words and as tests, texts to values and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.config.compare import UploadConfig
from whisperbench.config.option import (
    BOOLEAN,
    FRACTION,
    HOST_PORT,
    LANGUAGE,
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
        (at_least(1), [1, 2.5], [0, float("inf"), float("nan")]),
        (above(0), [0.1], [0, -1, float("inf")]),
        (between(1, 30), [1, 30], [0, 31]),
        (FRACTION, [0.01, 1.0], [0.0, 1.01]),
        (TEXT, ["ü x"], ["", "a\nb", "\x1b[31m"]),
        (HOST_PORT, ["10.0.0.1:6379", "host-1:80"], ["host", "none", "host:port"]),
        (LANGUAGE, ["en", "yue"], ["EN", "english", "e"]),
    ],
)
def test_rules(rule: Rule, accepted: list[Any], refused: list[Any]) -> None:
    """Each rule accepts these values and refuses those."""
    assert all(map(rule.test, accepted))
    assert not any(map(rule.test, refused))


def test_params_are_the_inverse_of_parsing() -> None:
    """Params are the command line's spelling, with a word for None; names that are not options are ignored."""
    params = {"count": "5", "share": "1.0", "flag": "true", "kind": "fp8", "name": "none"}
    example = Example(count=5, share=1.0, flag=True, kind="fp8", name="none")
    assert example.as_params() == params
    assert Example.from_params({**params, "flag": "TRUE", "share": "1", "gpu_name": "ignored"}) == example
    unset = {"count": "all", "share": "0.5", "flag": "false", "kind": "none", "name": "a"}
    assert Example.from_params(unset) == Example()
    assert Example().as_params() == unset


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"count": "0"}, "count='0' is not allowed: expected all, or a number of 1 or more."),
        ({"count": "12.5"}, "count='12.5' is not allowed: expected all, or a whole number."),
        ({"share": "much"}, "share='much' is not allowed: expected a number."),
        ({"flag": "yes"}, "flag='yes' is not allowed: expected true or false."),
        ({"kind": "fp9"}, "kind='fp9' is not allowed: expected one of none, fp8, int4. Did you mean fp8?"),
    ],
)
def test_a_wrong_text_is_refused(params: dict[str, str], message: str) -> None:
    """The message holds the option, the value, what is allowed, and the nearest choice."""
    with pytest.raises(ConfigError) as refused:
        Example.from_params(params)
    assert message in str(refused.value)


@pytest.mark.parametrize("values", [{"count": "8"}, {"flag": 1}, {"name": None}])
def test_a_value_of_another_type_is_refused(values: dict[str, Any]) -> None:
    """A record made in Python is as strict as a command line."""
    with pytest.raises(ConfigError, match="is not allowed: expected"):
        Example(**values)


@pytest.mark.parametrize(("given", "stored"), [("~/wb", "/home/ann/wb"), ("wb/x", "{here}/wb/x"), ("/a/b", "/a/b")])
def test_paths_become_absolute(given: str, stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is stored, printed and passed to other processes as the directory that is used."""
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.chdir(tmp_path)
    assert BenchmarkConfig.from_params({"results_dir": given}).results_dir == stored.format(here=tmp_path)
    assert UploadConfig.from_params({"bundles": given}).as_params()["bundles"] == stored.format(here=tmp_path)


def test_labels_are_of_options_away_from_their_defaults() -> None:
    """In the order of the options; an option without a label has none."""
    params = Example(flag=True, count=8, name="b").as_params()
    assert labels(Example.declared(), params) == {"count": "first8", "flag": "on"}
