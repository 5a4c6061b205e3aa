"""Lists and grid files become configurations in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.config.sweep import SweepConfig
from whisperbench.errors import ConfigError
from whisperbench.results.summary import command_line
from whisperbench.sweep.grid import configurations_of, names_of, schedule, sweep_digest


def settings(**options: object) -> list[tuple[str, str, int]]:
    return [(c.model, c.kv_cache_dtype, c.max_num_seqs) for c in configurations_of(SweepConfig(**options))]


def grid_file(directory: Path, text: str) -> str:
    path = directory / "grid.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


class TestProduct:
    def test_without_options_a_sweep_is_the_benchmark(self) -> None:
        """The one configuration of a sweep without options is that of a benchmark without options."""
        assert configurations_of(SweepConfig()) == (BenchmarkConfig(),)

    def test_the_last_list_turns_fastest(self) -> None:
        """Models change slowest, so that a model's rows stand together."""
        assert settings(models="large-v3,large-v3-turbo", kv_cache_dtypes="auto,fp8", max_num_seqs="128, 256") == [
            (model, cache, seqs)
            for model in ("large-v3", "large-v3-turbo")
            for cache in ("auto", "fp8")
            for seqs in (128, 256)
        ]

    def test_other_options_are_passed_through(self) -> None:
        """Every configuration has them."""
        found = configurations_of(SweepConfig(splits="test-clean,test-other", limit=20, load_format="dummy", seed=7))
        assert [(c.split, c.limit, c.load_format, c.seed) for c in found] == [
            ("test-clean", 20, "dummy", 7),
            ("test-other", 20, "dummy", 7),
        ]

    def test_a_combination_that_cannot_be_is_refused_before_anything_runs(self) -> None:
        """fp8 with float16, which FlashAttention 3 does not do."""
        with pytest.raises(ConfigError, match="kv_cache_dtype=fp8 needs dtype=bfloat16"):
            configurations_of(SweepConfig(kv_cache_dtypes="auto,fp8", dtypes="auto,float16"))

    def test_front_ends_and_weights_are_lists_too(self) -> None:
        """Front ends turn fastest: a drift of the machine meets both."""
        found = configurations_of(
            SweepConfig(front_end="pipelined,stock", load_format="auto,dummy", max_num_seqs="4,8")
        )
        assert [(c.max_num_seqs, c.load_format, c.front_end) for c in found[:5]] == [
            (4, "auto", "pipelined"),
            (4, "auto", "stock"),
            (4, "dummy", "pipelined"),
            (4, "dummy", "stock"),
            (8, "auto", "pipelined"),
        ]
        assert names_of(found[:2])[found[1].digest].endswith("-4-vllm-stock")

    def test_engines_are_a_list_and_name_their_runs(self) -> None:
        """Stock vLLM under its two names is one configuration, and twice in a grid it is refused."""
        found = configurations_of(SweepConfig(models="tiny.en", engine="vllm,vllm-stock,transformers"))
        assert list(names_of(found).values()) == [
            "tiny.en-auto-128",
            "tiny.en-auto-128-vllm-stock",
            "tiny.en-transformers",
        ]
        with pytest.raises(ConfigError, match="stands 2 times"):
            configurations_of(SweepConfig(engine="vllm,vllm-stock", front_end="stock"))


class TestGridFile:
    def test_bench_is_both_front_ends_with_both_models(self) -> None:
        """Random weights: what `make bench` measures."""
        found = configurations_of(SweepConfig(grid="bench"))
        assert sorted((c.model, c.front_end, c.max_num_seqs, c.load_format) for c in found) == [
            (model, front_end, 256, "dummy")
            for model in ("large-v3", "large-v3-turbo")
            for front_end in ("pipelined", "stock")
        ]

    def test_published_is_the_six_rows_of_the_published_table(self) -> None:
        """In its order; the rest of the options as ever."""
        assert settings(grid="published", load_format="dummy") == [
            ("large-v3", "auto", 128),
            ("large-v3-turbo", "auto", 128),
            ("large-v3", "fp8", 128),
            ("large-v3-turbo", "fp8", 128),
            ("large-v3", "fp8", 256),
            ("large-v3-turbo", "fp8", 256),
        ]

    def test_an_entry_is_a_product_of_its_own(self, tmp_path: Path) -> None:
        """What it does not name comes from the command line, lists included."""
        grid = grid_file(tmp_path, "- {model: tiny, max_num_seqs: [4, 8]}\n- {model: base, max_num_seqs: 16}\n")
        found = settings(grid=grid, kv_cache_dtypes="auto,fp8")
        assert len(found) == 6
        assert found[:2] == [("tiny", "auto", 4), ("tiny", "auto", 8)] or found[:2] == [
            ("tiny", "auto", 4),
            ("tiny", "fp8", 4),
        ]
        assert set(found[4:]) == {("base", "auto", 16), ("base", "fp8", 16)}

    def test_true_and_false_are_those_of_the_command_line(self, tmp_path: Path) -> None:
        """YAML's booleans and numbers become options."""
        grid = grid_file(tmp_path, "- {enforce_eager: [true, false], gpu_memory_utilization: 0.9}\n")
        assert [(c.enforce_eager, c.gpu_memory_utilization) for c in configurations_of(SweepConfig(grid=grid))] == [
            (True, 0.9),
            (False, 0.9),
        ]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("model: tiny", "expected a list of entries"),
            ("- {modell: tiny}", "'modell' is not an option"),
            ("- {max_num_seqs: lots}", "whole number"),
            ("- {model: tiny}\n- {model: tiny}", "stands 2 times"),
            ("- {repeats: 3}", "repeats is not a setting to compare; give it to the sweep"),
            ("- {offline: true}", "without a tracking server"),
            ("- {model: []}", "model has no value"),
            ("- [", "cannot be read"),
            ("", "expected a list of entries"),
        ],
    )
    def test_a_file_that_is_no_grid_is_named(self, tmp_path: Path, text: str, message: str) -> None:
        """With what is wrong in it."""
        with pytest.raises(ConfigError, match=message):
            configurations_of(SweepConfig(grid=grid_file(tmp_path, text)))

    def test_a_file_that_is_not_there_lists_the_grids_of_the_package(self) -> None:
        """So that a slip of the pen is seen at once."""
        with pytest.raises(ConfigError, match="published"):
            configurations_of(SweepConfig(grid="publisht"))

    def test_two_answers_to_one_question_are_refused(self) -> None:
        """models= beside a grid that names models would otherwise be dropped in silence."""
        with pytest.raises(ConfigError, match="both say what model is"):
            configurations_of(SweepConfig(grid="published", models="tiny"))


class TestSchedule:
    GRID = configurations_of(SweepConfig(models="a,b", max_num_seqs="4,8"))

    def test_repeats_are_interleaved(self) -> None:
        """a b a b: drift does not favour one."""
        found = [(task.name, task.repeat) for task in schedule(self.GRID, 2, "given", 0)]
        names = ["a-auto-4", "a-auto-8", "b-auto-4", "b-auto-8"]
        assert found == [(name, 1) for name in names] + [(name, 2) for name in names]

    def test_random_order_is_seeded_and_stays_within_a_round(self) -> None:
        """Another seed gives another order; each round has everything once."""
        names = [[task.name for task in schedule(self.GRID, 3, "random", seed)] for seed in (1, 1, 2)]
        assert names[0] == names[1] != names[2]
        assert all(sorted(names[0][i : i + 4]) == sorted(names[0][:4]) for i in (0, 4, 8))

    def test_a_name_says_what_differs_in_the_grid(self) -> None:
        """Beyond model, cache and sequences only what is not the same everywhere."""
        found = names_of(configurations_of(SweepConfig(models="tiny", dtypes="bfloat16,float32", limit=5)))
        assert list(found.values()) == ["tiny-auto-128-bfloat16", "tiny-auto-128-float32"]

    def test_directories_that_end_alike_have_names_of_their_own(self) -> None:
        """Two fine-tunes are two rows, each with a name to tell it by."""
        found = names_of(configurations_of(SweepConfig(models="/ft/a/step-10,/ft/b/step-10,tiny")))
        assert len(set(found.values())) == 3
        assert [name.startswith("step-10-auto-128-") for name in found.values()] == [True, True, False]


class TestIdentityOfASweep:
    def test_order_and_repeats_do_not_make_another_sweep(self) -> None:
        """The same configurations are the same sweep; one more is another."""
        there = configurations_of(SweepConfig(models="a,b"))
        assert sweep_digest(there) == sweep_digest(there[::-1])
        assert sweep_digest(there) != sweep_digest(configurations_of(SweepConfig(models="a,b,c")))

    def test_a_command_line_says_what_is_not_the_default(self) -> None:
        """And always the model; quoted for a shell."""
        config = BenchmarkConfig(model="my model", max_num_seqs=256)
        assert command_line(config) == "mlflow run . -P 'model=my model' -P max_num_seqs=256"
