"""A new option of the benchmark is one declaration: everything else is derived from it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.fakes import NO_GPU
from tests.support.reports import report_of
from tests.support.stores import run_of
from whisperbench.cli.generate import entry_point, options_page
from whisperbench.cli.options import command
from whisperbench.compare.columns import option_columns
from whisperbench.compare.systems import other_settings
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.config.option import at_least, option
from whisperbench.config.sweep import SweepConfig
from whisperbench.errors import ConfigError
from whisperbench.results.run_data import option_params
from whisperbench.results.run_name import run_name
from whisperbench.sweep.grid import configurations_of, names_of


def extended(**more: Any) -> Any:
    """The benchmark's options and `num_beams`."""
    num_beams = option(
        None, at_least(1), "Beams of the decoder.", "Engine",
        unset="greedy", engines=("vllm",), label="beams{}", column="beams", **more,
    )  # fmt: skip
    fields: list[tuple[str, Any, Any]] = [("num_beams", int | None, num_beams)]
    return dataclasses.make_dataclass("Extended", fields, bases=(BenchmarkConfig,), frozen=True, kw_only=True)


Extended = extended()


class ExtendedSweep(SweepConfig):
    """A sweep over the extended benchmark."""

    benchmark = Extended


def test_it_is_an_option_of_the_command() -> None:
    """--help shows it in its group; a text is parsed by its rule; it is a row of docs/options.md."""
    found: list[Any] = []
    main = command(Extended, "Measure.")(found.append)
    words = " ".join(CliRunner().invoke(main, ["--help"]).output.split())
    assert "--num-beams N Beams of the decoder. (vllm) [default: greedy]" in words
    CliRunner().invoke(main, ["--num-beams", "4"])
    assert found[0].num_beams == 4
    row = "| `num_beams` | greedy | greedy, or a number of 1 or more | vllm | list | Beams of the decoder. |"
    assert row in options_page(Extended)


@pytest.mark.parametrize(
    ("param", "logged"),
    [
        ("always", ["greedy", "4"]),
        ("resolved", ["1", "1"]),
        ("changed", [None, "4"]),
        ("never", [None, None]),
    ],
)
def test_its_declaration_decides_whether_it_is_a_param(param: str, logged: list[str | None]) -> None:
    """Of the engines that have it; MLproject declares it if it is a param of every run, because MLflow logs it."""
    declared = extended(param=param)
    assert [option_params(declared(num_beams=n), {"num_beams": "1"}).get("num_beams") for n in (None, 4)] == logged
    assert "num_beams" not in option_params(declared(engine="transformers"), {"num_beams": "1"})
    text = entry_point("main", "flows.benchmark", declared)
    assert ('      num_beams: {type: string, default: "greedy"}' in text) is (param == "always")
    assert ("      --num-beams {num_beams}" in text) is (param == "always")


def test_it_is_part_of_digest_and_name() -> None:
    """Of the engines that have it, if it differs from the default."""
    assert Extended(num_beams=4).digest != Extended().digest
    assert Extended(engine="transformers").digest == BenchmarkConfig(engine="transformers").digest
    with pytest.raises(ConfigError, match="num_beams=4 applies only to engine=vllm"):
        Extended(num_beams=4, engine="transformers")
    assert run_name(Extended(num_beams=4), NO_GPU) == "beams4_large-v3-turbo_CPU_test-clean"
    assert run_name(Extended(), NO_GPU) == "large-v3-turbo_CPU_test-clean"


def test_it_has_a_column_in_a_leaderboard_where_it_differs() -> None:
    """Or stands under other settings, if it declares no column."""
    one = report_of(run_of(Extended(num_beams=4)), run_of(Extended(), rate=80.0)).boards[0]
    two = report_of(run_of(Extended())).boards[0]
    column = option_columns(Extended.declared())["num_beams"]
    assert column.heading == "beams"
    assert {column.text(row) for row in one.rows} == {"4", "greedy"}
    assert (column.is_shown(one.rows), column.is_shown(two.rows)) == (True, False)
    hidden = {"num_beams": dataclasses.replace(Extended.declared()["num_beams"], column=None)}
    assert other_settings(hidden, Extended(num_beams=4).changed()) == "num_beams=4"


def test_a_sweep_takes_a_list_of_it() -> None:
    """The configurations have names of their own."""
    found = configurations_of(ExtendedSweep.from_params({"num_beams": "greedy,4"}))
    assert [config.num_beams for config in found] == [None, 4]
    assert list(names_of(found).values()) == ["large-v3-turbo", "beams4_large-v3-turbo"]
