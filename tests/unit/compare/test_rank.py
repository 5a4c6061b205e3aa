"""Order of a leaderboard, its verdicts, and Pareto-optimal systems."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.support.reports import A10, FP8, LARGE, TURBO, board_of
from tests.support.stores import H100, run_of, spoken
from whisperbench.compare.columns import shown_columns, verdict_of
from whisperbench.compare.rank import pareto
from whisperbench.compare.systems import systems
from whisperbench.config.benchmark import BenchmarkConfig


class TestByWer:
    def test_rows_are_sorted_and_have_verdicts(self) -> None:
        """The most accurate row is the reference; without transcripts a row has the reason."""
        best, none, worse = (run_of(c, wer=w) for c, w in ((LARGE, 5.0), (TURBO, 5.1), (FP8, 10.0)))
        board = board_of(worse, none, best, transcripts={best.run_id: spoken([1] * 80), worse.run_id: spoken([2] * 80)})
        assert [(row.system.newest, row.is_reference) for row in board.rows] == [
            (best, True), (none, False), (worse, False)
        ]  # fmt: skip
        found = [verdict_of(row).split(" (")[0] for row in board.rows]
        assert found == ["reference", "not compared: no transcripts", "worse"]
        assert [verdict_of(row) for row in board_of(best, worse).rows] == ["reference", "not compared: no transcripts"]

    @pytest.mark.parametrize("step", [1, -1])
    def test_of_equal_wers_the_faster_comes_first(self, step: int) -> None:
        """The order does not depend on the order of the runs."""
        runs = [run_of(LARGE, wer=2.0, rate=40.0), run_of(TURBO, wer=2.0, rate=60.0), run_of(FP8, wer=9.0)]
        board = board_of(*runs[::step])
        assert [row.system.newest for row in board.rows] == [runs[1], runs[0], runs[2]]
        assert [row.is_reference for row in board.rows] == [True, False, False]

    def test_a_single_configuration_is_not_compared(self) -> None:
        """It is neither a reference nor Pareto-optimal."""
        (row,) = board_of(run_of(LARGE)).rows
        assert (row.is_reference, row.verdict, row.pareto) == (False, None, False)

    def test_without_a_wer(self) -> None:
        """NaN is not a measurement and comes last; a leaderboard without any WER is sorted by throughput."""
        board = board_of(run_of(LARGE, wer=float("nan")), run_of(TURBO))
        assert [row.system.model for row in board.rows] == ["large-v3-turbo", "large-v3"]
        board = board_of(run_of(LARGE, wer=None, rate=10.0), run_of(TURBO, wer=None, rate=20.0))
        assert board.sort == "reqs_per_sec"
        assert [row.system.model for row in board.rows] == ["large-v3-turbo", "large-v3"]


class TestByRate:
    def test_the_noise_is_that_of_a_configurations_runs(self) -> None:
        """After one run it is unknown."""
        board = board_of(*(run_of(LARGE, rate=r) for r in (39.8, 40.0, 40.2)), run_of(FP8, rate=39.7), sort="rtfx")
        first, second = (row.speed for row in board.rows)
        assert first
        assert second
        assert (first.runs, first.noise_percent) == (3, pytest.approx(0.5, abs=0.01))
        assert (second.runs, second.noise_percent) == (1, None)

    def test_rates_of_all_gpus_are_in_one_order(self) -> None:
        """A rate of zero is not a measurement and comes last; less energy is better."""
        known = [(FP8, A10, 9.0), (LARGE, H100, 40.0), (FP8, H100, 50.0), (LARGE, A10, 0.0)]
        board = board_of(*(run_of(c, gpu=g, rate=r) for c, g, r in known), sort="reqs_per_sec")
        assert [row.system.median("reqs_per_sec") for row in board.rows] == pytest.approx([50.0, 40.0, 9.0, None])
        runs = [run_of(c, metrics={"energy_wh_per_audio_hour": e}) for c, e in ((LARGE, 2.0), (TURBO, 1.0))]
        assert board_of(*runs, sort="energy").rows[0].system.model == "large-v3-turbo"


class TestPareto:
    def test_it_keeps_undominated_systems_of_each_gpu(self) -> None:
        """A slower and less accurate system is dominated, but not by a system on another GPU."""
        best = run_of(LARGE, wer=2.0, rate=40.0)
        fast, beaten = run_of(TURBO, wer=2.5, rate=60.0), run_of(FP8, wer=2.4, rate=39.0)
        small = run_of(FP8, wer=2.4, rate=9.0, gpu=A10)
        assert [c.newest for c in pareto(systems([best, fast, beaten, small]))] == [fast, best, small]

    @pytest.mark.parametrize("seed", range(3))
    def test_it_agrees_with_the_definition(self, seed: int) -> None:
        """Random values: a system is kept if no other is at least equal in both values and better in one."""
        rng = np.random.default_rng(seed)
        runs = [
            run_of(BenchmarkConfig(model=f"m{i}"), wer=float(rng.integers(1, 6)), rate=float(rng.integers(1, 6)))
            for i in range(12)
        ]
        figures = {r.run_id: (r.metrics["wer"], -r.metrics["reqs_per_sec"]) for r in runs}
        beaten = {
            a for a, b in itertools.permutations(figures, 2)
            if figures[b] != figures[a] and all(y <= x for x, y in zip(figures[a], figures[b], strict=True))
        }  # fmt: skip
        assert {c.newest.run_id for c in pareto(systems(runs))} == figures.keys() - beaten


def test_the_most_important_columns_come_first() -> None:
    """A narrow terminal shows the columns on the left: model, GPU, settings, WER, reqs/sec, RTFx and cost."""
    shared = BenchmarkConfig(model="large-v3", padding_stride=16, engines_per_gpu=2)
    found = [column.heading for column in shown_columns(board_of(run_of(LARGE), run_of(shared, rate=80.0)))]
    assert found[:8] == ["model", "gpu", "stride", "engines per GPU", "WER %", "accuracy", "reqs/sec", "RTFx"]
    assert "stride" not in [column.heading for column in shown_columns(board_of(run_of(LARGE), run_of(TURBO)))]
