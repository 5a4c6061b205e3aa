"""A new option of the benchmark is one declaration: everything else is derived from it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from click.testing import CliRunner

from whisperbench.cli.generate import entry_point, options_page
from whisperbench.cli.options import command
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.config.option import at_least, option
from whisperbench.config.sweep import SweepConfig
from whisperbench.errors import ConfigError

NUM_BEAMS = option(
    None,
    at_least(1),
    "Beams of the decoder.",
    "Engine",
    unset="greedy",
    engines=("vllm",),
    label="beams{}",
    column="beams",
)
FIELDS: list[tuple[str, Any, Any]] = [("num_beams", int | None, NUM_BEAMS)]
Extended: Any = dataclasses.make_dataclass(
    "Extended", FIELDS, bases=(BenchmarkConfig,), frozen=True, slots=True, kw_only=True
)


class ExtendedSweep(SweepConfig):
    """A sweep over the extended benchmark."""

    benchmark = Extended


def test_it_is_an_option_of_the_command() -> None:
    """--help shows it in its group; a text is parsed by its rule."""
    found: list[Any] = []
    main = command(Extended, "Measure.")(found.append)
    words = " ".join(CliRunner().invoke(main, ["--help"]).output.split())
    assert "--num-beams N Beams of the decoder. (vllm) [default: greedy]" in words
    CliRunner().invoke(main, ["--num-beams", "4"])
    assert found[0].num_beams == 4


def test_it_is_a_parameter_of_mlproject_and_a_row_of_the_page() -> None:
    """With its default."""
    text = entry_point("main", "flows.benchmark", Extended)
    assert '      num_beams: {type: string, default: "greedy"}' in text
    assert "      --num-beams {num_beams}" in text
    row = "| `num_beams` | greedy | greedy, or a number of 1 or more | vllm | list | Beams of the decoder. |"
    assert row in options_page(Extended)


def test_it_is_a_param_and_part_of_the_digest() -> None:
    """Of the engines that have it."""
    assert Extended(num_beams=4).as_params()["num_beams"] == "4"
    assert Extended(num_beams=4).digest != Extended().digest
    assert Extended(engine="transformers").digest == BenchmarkConfig(engine="transformers").digest
    with pytest.raises(ConfigError, match="num_beams=4 applies only to engine=vllm"):
        Extended(num_beams=4, engine="transformers")


def test_a_sweep_takes_a_list_of_it() -> None:
    """Under the same name."""
    sweep = ExtendedSweep.from_params({"num_beams": "greedy,4"})
    assert sweep.axis("num_beams") == ("greedy", "4")
