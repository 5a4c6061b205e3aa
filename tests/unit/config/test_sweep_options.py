"""Options of a sweep: the benchmark's, of which some are lists, or ranges of a search."""

from __future__ import annotations

import dataclasses

import pytest

from whisperbench.config.benchmark import MAIN
from whisperbench.config.sweep import LISTS, NOT_IN_A_SWEEP, Range, SweepConfig
from whisperbench.errors import ConfigError


def test_every_option_of_the_benchmark_is_one_of_the_sweep() -> None:
    """As a list, under its own name, or left out on purpose; with the benchmark's own default."""
    own = {field.name: field for field in dataclasses.fields(SweepConfig)}
    for name, field in MAIN.items():
        if name in LISTS.values():
            assert name in {LISTS[option] for option in own if option in LISTS}
        elif name not in NOT_IN_A_SWEEP:
            assert own[name].default == field.default


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": "large-v3,,tiny"}, "separated by commas"),
        ({"models": "tiny,tiny"}, "different values"),
        ({"max_num_seqs": "128,many"}, "whole number"),
        ({"max_num_seqs": "64..512"}, "only a search goes through one"),
        ({"max_wer": 2.5}, "objective=reqs_per_sec too"),
        ({"objective": "speed"}, "one of none, wer, reqs_per_sec"),
        ({"objective": "rtfx", "grid": "published"}, "choose one"),
        ({"objective": "rtfx", "splits": "test-clean,test-other"}, "one set of data"),
        ({"objective": "rtfx", "load_format": "auto,dummy"}, "one set of data"),
        ({"objective": "rtfx", "max_wer": 3.0, "load_format": "dummy"}, "random weights"),
        ({"objective": "rtfx", "max_num_seqs": "512..64"}, "low below high"),
        ({"objective": "rtfx", "max_num_seqs": "0..512"}, "0 is not a number of 1 or more"),
        ({"objective": "rtfx", "max_num_batched_tokens": "0..48000"}, "0 is not"),
        ({"objective": "rtfx", "gpu_memory_utilization": "0.5..1.5"}, "1.5 is not a number above 0"),
        ({"objective": "cost", "max_num_seqs": "64..512"}, "give gpu_hourly_usd"),
        ({"repeats": 0}, "1 or more"),
        ({"order": "sorted"}, "given, random"),
    ],
)
def test_a_wrong_value_is_named_with_the_way_out(options: dict[str, object], message: str) -> None:
    """The message names what would be right."""
    with pytest.raises(ConfigError, match=message):
        SweepConfig(**options)


def test_a_range_is_for_a_search() -> None:
    """`low..high:step`, both ends included."""
    options = SweepConfig(objective="rtfx", max_num_seqs="64..512:64", gpu_memory_utilization="0.8..0.95")
    assert options.values("max_num_seqs") == Range(64, 512, 64)
    assert options.values("gpu_memory_utilization") == Range(0.8, 0.95, None)
