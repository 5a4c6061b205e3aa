"""Options of a sweep: the benchmark's as lists or ranges, and its own ten."""

from __future__ import annotations

from pathlib import Path

import pytest

from whisperbench.config.benchmark import OPTIONS
from whisperbench.config.option import declared_in
from whisperbench.config.sweep import Range, SweepConfig
from whisperbench.errors import ConfigError


def test_a_sweep_has_the_options_of_the_benchmark() -> None:
    """With the benchmark's names and defaults; what is left out is declared there."""
    of_benchmark = {name: each.default_text for name, each in OPTIONS.items() if each.sweep != "no"}
    params = SweepConfig().as_params()
    assert {name: params[name] for name in params.keys() - declared_in(SweepConfig).keys()} == of_benchmark


def test_lists_are_read_as_csv() -> None:
    """Values in the order given, spaces around them ignored; a value in quotes may hold a comma."""
    sweep = SweepConfig.from_params({"model": '"/data/a,b", tiny.en', "max_num_seqs": "64,128", "results_dir": "a,b"})
    assert sweep.axis("model") == ("/data/a,b", "tiny.en")
    assert sweep.axis("max_num_seqs") == ("64", "128")
    assert sweep.axis("dtype") == ("auto",)
    assert sweep.axis("results_dir") == (str(Path("a,b").absolute()),)
    assert sweep.shared.results_dir == str(Path("a,b").absolute())
    assert SweepConfig.from_params(sweep.as_params()) == sweep


def test_a_range_belongs_to_a_search() -> None:
    """`low..high:step`, both ends included."""
    texts = {"objective": "rtfx", "max_num_seqs": "64..512:64", "gpu_memory_utilization": "0.8..0.95"}
    sweep = SweepConfig.from_params(texts)
    assert sweep.axis("max_num_seqs") == Range(64, 512, 64)
    assert sweep.axis("gpu_memory_utilization") == Range(0.8, 0.95, 0.01)
    assert SweepConfig.from_params(sweep.as_params()) == sweep
    assert Range(64, 512, 64).nearest(100) == 128
    assert Range(64, 512, None).nearest(999) == 512


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"model": "large-v3,,tiny"}, "different values, separated by commas"),
        ({"model": "tiny,tiny"}, "different values, separated by commas"),
        ({"max_num_seqs": "128,0"}, "expected a number of 1 or more"),
        ({"results_dir": ""}, "results_dir"),
        ({"max_num_seqs": "64..512"}, "is a range, which needs a search"),
        ({"max_wer": "2.5"}, "applies only to a search"),
        ({"objective": "rtfx", "grid": "published"}, "Use one"),
        ({"objective": "rtfx", "split": "test-clean,test-other"}, "needs one set of data"),
        ({"objective": "rtfx", "max_wer": "3", "load_format": "dummy"}, "random weights"),
        ({"objective": "rtfx", "max_num_seqs": "512..64"}, "low below high"),
        ({"objective": "rtfx", "max_num_seqs": "64..512:x"}, "expected a whole number"),
        ({"objective": "rtfx", "limit": "1..all"}, "low below high"),
        ({"objective": "cost", "max_num_seqs": "64..512"}, "Set gpu_hourly_usd"),
        ({"parallel_runs": "all", "gpus": "1,2"}, "with gpus=1"),
        ({"parallel_runs": "2", "objective": "rtfx", "max_num_seqs": "1..9"}, "parallel_runs=2 measures"),
        ({"engine": "transformers,openai-whisper", "padding_stride": "4,16"}, "padding_stride=4,16 applies only to"),
    ],
)
def test_a_wrong_value_is_refused(texts: dict[str, str], message: str) -> None:
    """With the option's name and the way out."""
    with pytest.raises(ConfigError) as refused:
        SweepConfig.from_params(texts)
    assert message in str(refused.value)
