"""Configurations from lists and grid files, in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.options import sweep_of
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.errors import ConfigError
from whisperbench.results.summary import command_line
from whisperbench.sweep.grid import configurations_of, names_of, schedule, sweep_digest


def settings(**options: object) -> list[tuple[str, str, int]]:
    return [(c.model, c.kv_cache_dtype, c.max_num_seqs) for c in configurations_of(sweep_of(**options))]


def grid_file(directory: Path, text: str) -> str:
    path = directory / "grid.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


class TestProduct:
    def test_without_options_a_sweep_is_the_benchmark(self) -> None:
        """The one configuration of a sweep without options is that of a benchmark without options."""
        assert configurations_of(sweep_of()) == (BenchmarkConfig(),)

    def test_values_of_the_last_list_vary_fastest(self) -> None:
        """The model varies slowest, so that the rows of a model are adjacent."""
        assert settings(model="large-v3,large-v3-turbo", kv_cache_dtype="auto,fp8", max_num_seqs="128, 256") == [
            (model, cache, seqs)
            for model in ("large-v3", "large-v3-turbo")
            for cache in ("auto", "fp8")
            for seqs in (128, 256)
        ]

    def test_other_options_are_passed_through(self) -> None:
        """Every configuration has them."""
        found = configurations_of(sweep_of(split="test-clean,test-other", limit=20, load_format="dummy", seed=7))
        assert [(c.split, c.limit, c.load_format, c.seed) for c in found] == [
            ("test-clean", 20, "dummy", 7),
            ("test-other", 20, "dummy", 7),
        ]

    def test_an_invalid_combination_is_refused_before_the_first_run(self) -> None:
        """FlashAttention 3 has no fp8 cache with float16."""
        with pytest.raises(ConfigError, match="kv_cache_dtype=fp8 needs dtype=bfloat16"):
            configurations_of(sweep_of(kv_cache_dtype="auto,fp8", dtype="auto,float16"))

    def test_engines_and_weights_are_lists_too(self) -> None:
        """The later an option is declared, the faster it changes."""
        found = configurations_of(sweep_of(engine="vllm,vllm-stock", load_format="auto,dummy", max_num_seqs="4,8"))
        assert [(c.load_format, c.engine, c.max_num_seqs) for c in found[:5]] == [
            ("auto", "vllm", 4),
            ("auto", "vllm", 8),
            ("auto", "vllm-stock", 4),
            ("auto", "vllm-stock", 8),
            ("dummy", "vllm", 4),
        ]

    def test_engines_name_their_runs(self) -> None:
        """The default engine has no label."""
        found = configurations_of(sweep_of(model="tiny.en", engine="vllm,vllm-stock,transformers"))
        assert list(names_of(found).values()) == ["tiny.en", "vllm-stock_tiny.en", "transformers_tiny.en"]

    def test_an_option_is_reset_for_an_engine_that_does_not_have_it(self) -> None:
        """Configurations that become equal are measured once, and a sentence mentions them."""
        said: list[str] = []
        options = sweep_of(engine="vllm,transformers", max_num_seqs="128,256", padding_stride="4")
        found = configurations_of(options, said.append)
        assert [(c.engine, c.max_num_seqs, c.padding_stride) for c in found] == [
            ("vllm", 128, 4),
            ("vllm", 256, 4),
            ("transformers", 128, 1),
        ]
        assert said == ["Left out 1 configuration(s) that differ only in options that their engine does not have."]


class TestGridFile:
    def test_bench_is_both_vllm_engines_with_both_models(self) -> None:
        """With random weights; vllm-stock also in eager mode, as the published figures were measured."""
        found = configurations_of(sweep_of(grid="bench"))
        assert sorted((c.model, c.engine, c.enforce_eager, c.max_num_seqs, c.load_format) for c in found) == [
            (model, *settings, "dummy")
            for model in ("large-v3", "large-v3-turbo")
            for settings in (("vllm", False, 256), ("vllm-stock", False, 256), ("vllm-stock", True, 128))
        ]

    def test_padding_varies_the_stride(self) -> None:
        """One engine with the whole padding, several with a thinned one."""
        found = configurations_of(sweep_of(grid="padding"))
        assert {(c.padding_stride > 1, (c.engines_per_gpu or 0) > 1) for c in found} == {(False, False), (True, True)}

    def test_published_is_the_six_rows_of_the_published_table(self) -> None:
        """The order is that of the table; other options have their defaults."""
        assert settings(grid="published", load_format="dummy") == [
            ("large-v3", "auto", 128),
            ("large-v3-turbo", "auto", 128),
            ("large-v3", "fp8", 128),
            ("large-v3-turbo", "fp8", 128),
            ("large-v3", "fp8", 256),
            ("large-v3-turbo", "fp8", 256),
        ]

    def test_each_entry_is_a_product(self, tmp_path: Path) -> None:
        """Options that an entry does not name come from the command line, lists included."""
        grid = grid_file(tmp_path, "- {model: tiny, max_num_seqs: [4, 8]}\n- {model: base, max_num_seqs: 16}\n")
        found = settings(grid=grid, kv_cache_dtype="auto,fp8")
        assert len(found) == 6
        assert found[:2] == [("tiny", "auto", 4), ("tiny", "auto", 8)]
        assert set(found[4:]) == {("base", "auto", 16), ("base", "fp8", 16)}

    def test_true_and_false_are_those_of_the_command_line(self, tmp_path: Path) -> None:
        """YAML's booleans and numbers become options."""
        grid = grid_file(tmp_path, "- {enforce_eager: [true, false], gpu_memory_utilization: 0.9}\n")
        assert [(c.enforce_eager, c.gpu_memory_utilization) for c in configurations_of(sweep_of(grid=grid))] == [
            (True, 0.9),
            (False, 0.9),
        ]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("model: tiny", "expected a list of entries"),
            ("- {modell: tiny}", "'modell' is not an option"),
            ("- {max_num_seqs: lots}", "whole number"),
            ("- {model: tiny}\n- {model: tiny}", "lists tiny 2 times"),
            ("- {repeats: 3}", "repeats cannot vary"),
            ("- {offline: true}", "offline cannot vary"),
            ("- {model: tiny, batch_size: 16}", "applies only to engine=faster-whisper or transformers"),
            ("- {model: []}", "model has no value"),
            ("- [", "cannot be read"),
            ("", "expected a list of entries"),
        ],
    )
    def test_an_invalid_grid_file_is_refused(self, tmp_path: Path, text: str, message: str) -> None:
        """The message states what is wrong in the file."""
        with pytest.raises(ConfigError, match=message):
            configurations_of(sweep_of(grid=grid_file(tmp_path, text)))

    def test_a_file_that_is_not_there_lists_the_grids_of_the_package(self) -> None:
        """The message helps to find a misspelt name."""
        with pytest.raises(ConfigError, match="published"):
            configurations_of(sweep_of(grid="publisht"))

    def test_an_option_needs_one_engine_of_the_grid(self, tmp_path: Path) -> None:
        """The entries of a file may name the engine."""
        grid = grid_file(tmp_path, "- {engine: [vllm, transformers]}\n")
        found = configurations_of(sweep_of(grid=grid, batch_size=16, max_num_seqs=64))
        assert [(c.engine, c.batch_size, c.max_num_seqs) for c in found] == [
            ("vllm", None, 64),
            ("transformers", 16, 128),
        ]
        with pytest.raises(ConfigError, match="batch_size=16 applies only to"):
            configurations_of(sweep_of(grid=grid_file(tmp_path, "- {engine: vllm}"), batch_size=16))

    def test_an_option_of_the_grid_cannot_be_a_sweep_option_too(self) -> None:
        """model= beside a grid that names models would otherwise have no effect."""
        with pytest.raises(ConfigError, match="entry 1: model is also an option of the sweep, model=tiny"):
            configurations_of(sweep_of(grid="published", model="tiny"))


class TestSchedule:
    GRID = configurations_of(sweep_of(model="a,b", max_num_seqs="4,8"))

    def test_repeats_are_interleaved(self) -> None:
        """The order a b a b distributes drift over all configurations."""
        found = [(task.name, task.repeat) for task in schedule(self.GRID, 2, "given", 0)]
        names = ["seqs4_a", "seqs8_a", "seqs4_b", "seqs8_b"]
        assert found == [(name, 1) for name in names] + [(name, 2) for name in names]

    def test_random_order_is_seeded_and_stays_within_a_repeat(self) -> None:
        """Another seed gives another order; each repeat has every configuration once."""
        names = [[task.name for task in schedule(self.GRID, 3, "random", seed)] for seed in (1, 1, 2)]
        assert names[0] == names[1] != names[2]
        assert all(sorted(names[0][i : i + 4]) == sorted(names[0][:4]) for i in (0, 4, 8))

    def test_a_name_has_what_differs_in_the_grid(self) -> None:
        """Labels and model; the data only if it differs within the grid."""
        found = names_of(configurations_of(sweep_of(model="tiny", dtype="bfloat16,float32", limit=5)))
        assert list(found.values()) == ["bfloat16_tiny", "float32_tiny"]
        found = names_of(configurations_of(sweep_of(model="tiny", limit="5,all")))
        assert list(found.values()) == ["tiny-test-clean-first5", "tiny-test-clean"]

    def test_directories_with_equal_names_are_distinguished(self) -> None:
        """Two local checkpoints in directories of the same name have different run names."""
        found = names_of(configurations_of(sweep_of(model="/ft/a/step-10,/ft/b/step-10,tiny")))
        assert len(set(found.values())) == 3
        assert [name.startswith("step-10-") for name in found.values()] == [True, True, False]


class TestIdentityOfASweep:
    def test_order_and_repeats_do_not_make_another_sweep(self) -> None:
        """The same configurations are the same sweep; one more is another."""
        there = configurations_of(sweep_of(model="a,b"))
        assert sweep_digest(there) == sweep_digest(there[::-1])
        assert sweep_digest(there) != sweep_digest(configurations_of(sweep_of(model="a,b,c")))

    def test_a_command_line_has_what_is_not_the_default(self) -> None:
        """The model is always included; values are quoted for a shell."""
        config = BenchmarkConfig(model="my model", max_num_seqs=256)
        assert command_line(config) == "mlflow run . -P 'model=my model' -P max_num_seqs=256"
