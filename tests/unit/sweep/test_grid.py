"""Configurations from lists and grid files, in order, with names of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.options import sweep_of
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.errors import ConfigError
from whisperbench.sweep.grid import GRIDS, configurations_of, names_of, schedule, sweep_digest


def settings(**options: object) -> list[tuple[str, str, int]]:
    return [(c.model, c.kv_cache_dtype, c.max_num_seqs) for c in configurations_of(sweep_of(**options))]


def grid_file(directory: Path, text: str) -> str:
    path = directory / "grid.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_lists_are_a_product() -> None:
    """The model varies slowest, so that its rows are adjacent; without lists a sweep is the benchmark."""
    assert settings(model="large-v3,large-v3-turbo", kv_cache_dtype="auto,fp8", max_num_seqs="128, 256") == [
        (model, cache, seqs)
        for model in ("large-v3", "large-v3-turbo")
        for cache in ("auto", "fp8")
        for seqs in (128, 256)
    ]
    assert configurations_of(sweep_of()) == (BenchmarkConfig(),)
    with pytest.raises(ConfigError, match="kv_cache_dtype=fp8 needs dtype=bfloat16"):
        configurations_of(sweep_of(kv_cache_dtype="auto,fp8", dtype="auto,float16"))


def test_an_option_is_reset_for_an_engine_that_does_not_have_it() -> None:
    """Configurations that become equal are measured once, and a sentence mentions them."""
    said: list[str] = []
    options = sweep_of(engine="vllm,transformers", max_num_seqs="128,256", padding_stride="4")
    found = configurations_of(options, said.append)
    assert [(c.engine, c.max_num_seqs, c.padding_stride) for c in found] == [
        ("vllm", 128, 4),
        ("vllm", 256, 4),
        ("transformers", 128, 1),
    ]
    assert [sentence.partition(".")[0] for sentence in said] == ["Left out 1 configuration(s) that equal another one"]


def test_the_grids_of_the_package() -> None:
    """All are valid; `published` has the six settings of the published table, in its order."""
    assert all(configurations_of(sweep_of(grid=path.stem)) for path in GRIDS.iterdir())
    models = ("large-v3", "large-v3-turbo")
    expected = [(model, cache, seqs) for cache, seqs in (("auto", 128), ("fp8", 128), ("fp8", 256)) for model in models]
    assert settings(grid="published") == expected
    with pytest.raises(ConfigError, match="bench, padding, published, quantization"):
        configurations_of(sweep_of(grid="publisht"))


def test_each_entry_of_a_file_is_a_product(tmp_path: Path) -> None:
    """Options that an entry does not name come from the command line, if an engine of the file has them."""
    entries = "- {model: tiny, engine: [vllm, transformers]}\n- {model: base, max_num_seqs: 16, enforce_eager: true}\n"
    found = configurations_of(sweep_of(grid=grid_file(tmp_path, entries), kv_cache_dtype="auto,fp8", batch_size=8))
    assert [(c.model, c.kv_cache_dtype, c.max_num_seqs, c.enforce_eager, c.batch_size) for c in found] == [
        ("tiny", "auto", 128, False, None),
        ("tiny", "fp8", 128, False, None),
        ("tiny", "auto", 128, False, 8),
        ("base", "auto", 16, True, None),
        ("base", "fp8", 16, True, None),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: tiny", "expected a list of entries"),
        ("- [", "cannot be read"),
        ("- {modell: tiny}", "entry 1: modell is not an option that a grid can vary"),
        ("- {seed: 3}", "seed is not an option that a grid can vary"),
        ("- {model: []}", "model has no value"),
        ("- {max_num_seqs: lots}", "whole number"),
        ("- {model: tiny, batch_size: 16}", "batch_size=16 applies only to engine=faster-whisper or transformers"),
        ("- {engine: transformers}", "padding_stride=8 applies only to engine=vllm"),
        ("- {padding_stride: 9}", "entry 1: padding_stride is also an option of the sweep, padding_stride=8"),
    ],
)
def test_an_invalid_grid_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """The message states what is wrong in the file, or with an option beside it."""
    with pytest.raises(ConfigError, match=message):
        configurations_of(sweep_of(grid=grid_file(tmp_path, text), padding_stride=8))


def test_repeats_are_interleaved() -> None:
    """The order a b a b distributes drift; a random one is seeded and differs between repeats."""
    grid = configurations_of(sweep_of(model="a,b", max_num_seqs="4,8"))
    names = ["seqs4_a", "seqs8_a", "seqs4_b", "seqs8_b"]
    found = [(run.name, run.repeat) for run in schedule(grid, 2, "given", 0)]
    assert found == [(name, 1) for name in names] + [(name, 2) for name in names]
    random = [[run.name for run in schedule(grid, 3, "random", seed)] for seed in (1, 1, 2)]
    assert random[0] == random[1] != random[2]
    assert all(sorted(random[0][i : i + 4]) == sorted(names) for i in (0, 4, 8))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"model": "tiny", "dtype": "bfloat16,float32", "limit": 5}, ["bfloat16_tiny", "float32_tiny"]),
        ({"model": "tiny", "limit": "5,all"}, ["tiny-test-clean-first5", "tiny-test-clean"]),
        ({"model": "/ft/a/step-10,/ft/b/step-10,tiny"}, ["step-10-949999", "step-10-2f2644", "tiny"]),
    ],
)
def test_a_name_has_what_differs_in_the_grid(options: dict[str, object], names: list[str]) -> None:
    """Labels and model, the data only if it differs, and digests for directories with equal names."""
    assert list(names_of(configurations_of(sweep_of(**options))).values()) == names


def test_order_and_repeats_do_not_make_another_sweep() -> None:
    """The same configurations are the same sweep; one more is another."""
    configs = configurations_of(sweep_of(model="a,b"))
    assert sweep_digest(configs) == sweep_digest(configs[::-1])
    assert sweep_digest(configs) != sweep_digest(configurations_of(sweep_of(model="a,b,c")))
