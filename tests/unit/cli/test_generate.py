"""MLproject and docs/options.md are made from the option records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from whisperbench.cli.generate import ENTRY_POINTS, PROJECT, options_page, project_file
from whisperbench.config.option import Options, declared_in
from whisperbench.config.sweep import SweepConfig


def read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def test_generated_files_are_current() -> None:
    """The files in the repository are equal to the output of `make generate`."""
    assert read("MLproject") == project_file()
    assert read("docs/options.md") == options_page()


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_entry_point_passes_its_parameters(name: str) -> None:
    """Defaults are those of the record; options with words are strings, because MLflow refuses words for numbers.

    MLflow logs what is declared, so options that are not params of every run are not declared.
    """
    module, record = ENTRY_POINTS[name]
    own = declared_in(SweepConfig) if name == "sweep" else ()
    declared: dict[str, Any] = yaml.safe_load(project_file())["entry_points"][name]
    texts = {key: str(value["default"]) for key, value in declared["parameters"].items()}
    assert texts == {
        option.name: option.default_text
        for option in record.declared().values()
        if option.param == "always" or name not in ("main", "sweep") or option.name in own
    }
    assert record.from_params(texts) == record()
    for key, value in declared["parameters"].items():
        assert f"--{key.replace('_', '-')} {{{key}}}" in declared["command"]
        assert value["type"] == "string" or isinstance(value["default"], int | float)
    assert f"python -m {module} " in declared["command"]
    assert Path(PROJECT, *module.split(".")).with_suffix(".py").exists()


def test_parameters_of_words_and_lists_are_strings() -> None:
    """`time_limit_minutes=none` and `max_num_seqs=64,128` (in a sweep) pass MLflow's check of types."""
    main, sweep = (yaml.safe_load(project_file())["entry_points"][name]["parameters"] for name in ("main", "sweep"))
    assert main["max_num_seqs"] == {"type": "float", "default": 128}
    assert sweep["max_num_seqs"] == {"type": "string", "default": "128"}
    assert sweep["time_limit_minutes"] == {"type": "string", "default": "none"}


def test_the_page_lists_every_option_once() -> None:
    """A row has the default, the allowed values, the engines and the use in a sweep."""
    page = options_page()
    records: set[type[Options]] = {record for _, record in ENTRY_POINTS.values()}
    assert all(f"| `{name}` |" in page for record in records for name in record.declared())
    assert "| `limit` | all | all, or a number of 1 or more | all | list | Transcribe" in page
    assert "| `max_num_seqs` | 128 | a number of 1 or more | vllm* | list |" in page
    assert "| `offline` | false | true/false | all | – |" in page
    assert "| `seed` | 32 | a whole number from 0 to 4294967295 | all | same |" in page
