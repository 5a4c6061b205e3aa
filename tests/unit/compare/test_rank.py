"""Order, ranks and ties of a group."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from whisperbench.compare.paired_tests import paired_tests

from tests.support.stores import H100, run_of, spoken
from whisperbench.compare.columns import shown_columns
from whisperbench.compare.groups import Grouping
from whisperbench.compare.rank import Leaderboard, best_per_gpu_and_model, pareto, rank, tested_systems
from whisperbench.compare.report import explanation
from whisperbench.compare.systems import systems
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.results.record import RunRecord
from whisperbench.results.transcripts import read_table

A10 = "NVIDIA A10"
LARGE = BenchmarkConfig(model="large-v3")
TURBO = BenchmarkConfig(model="large-v3-turbo")
FP8 = BenchmarkConfig(model="large-v3", kv_cache_dtype="fp8")


def board_of(*runs: RunRecord, sort: str = "wer", transcripts: dict[str, str] | None = None) -> Leaderboard:
    grouping = Grouping.of(runs, sort)
    stored = {run_id: read_table(text) for run_id, text in (transcripts or {}).items()}
    return rank(grouping.groups[0], sort, paired_tests(grouping.groups[0], stored, seed=32))


def ranks(board: Leaderboard) -> list[tuple[str, int | None, bool]]:
    return [(row.system.label, row.rank, row.tied) for row in board.rows]


class TestRankByWer:
    def test_a_significantly_worse_run_comes_after(self) -> None:
        """20 speakers, each with 4 errors more, are a significant difference."""
        best, worse = run_of(LARGE, wer=2.0, interval=(1, 4)), run_of(TURBO, wer=4.0, interval=(3, 6))
        transcripts = {best.run_id: spoken([1] * 80), worse.run_id: spoken([2] * 80)}
        assert ranks(board_of(worse, best, transcripts=transcripts)) == [
            ("large-v3", 1, False),
            ("large-v3-turbo", 2, False),
        ]

    def test_a_run_that_is_not_significantly_worse_shares_the_rank(self) -> None:
        """One more error in 80 utterances is not significant: it is a tie, and the next system is third."""
        best, tie = run_of(LARGE, wer=2.0, interval=(1, 4)), run_of(TURBO, wer=2.1, interval=(1, 4))
        last = run_of(FP8, wer=9.0, interval=(8, 10))
        transcripts = {best.run_id: spoken([1] * 80), tie.run_id: spoken([1] * 79 + [2])}
        assert [row[1:] for row in ranks(board_of(last, tie, best, transcripts=transcripts))] == [
            (1, True),
            (1, True),
            (3, False),
        ]

    def test_systems_with_intervals_far_apart_are_not_tested(self) -> None:
        """Transcripts are needed only for systems whose interval, three times as wide, overlaps that of the best."""
        best, near = run_of(LARGE, wer=2.0, interval=(1.5, 2.5)), run_of(TURBO, wer=4.0, interval=(3.7, 4.3))
        far = run_of(FP8, wer=7.0, interval=(6, 8))
        (group,) = Grouping.of([far, near, best], "wer").groups
        assert [c.newest for c in tested_systems(group)] == [best, near]

    def test_without_transcripts_runs_are_ranked_and_marked(self) -> None:
        """No paired test and no tie; the row has the reason."""
        best, other = run_of(LARGE, wer=2.0), run_of(TURBO, wer=2.1)
        board = board_of(best, other, transcripts={best.run_id: spoken([1] * 8)})
        assert [row[1] for row in ranks(board)] == [1, 2]
        assert board.rows[1].no_test == "no transcripts"

    def test_a_best_run_without_transcripts_is_marked_too(self) -> None:
        """Each row has it as the reason why no test was possible."""
        best, other = run_of(LARGE, wer=2.0), run_of(TURBO, wer=2.1)
        board = board_of(best, other, transcripts={other.run_id: spoken([1] * 8)})
        assert [row.no_test for row in board.rows] == ["no transcripts"] * 2

    @pytest.mark.parametrize("attempt", range(8))
    def test_equal_wers_tie_without_a_test(self, attempt: int) -> None:
        """Equal WERs share the rank, independently of the run ids; the faster system comes first."""
        runs = [run_of(LARGE, wer=2.0, rate=40.0), run_of(TURBO, wer=2.0, rate=60.0), run_of(FP8, wer=9.0)]
        board = board_of(*runs[:: 1 if attempt % 2 else -1])
        assert [(row.system.newest, row.rank, row.most_accurate) for row in board.rows] == [
            (runs[1], 1, True),
            (runs[0], 1, True),
            (runs[2], 3, False),
        ]

    def test_equal_wers_below_the_best_share_their_place(self) -> None:
        """This also holds for systems that do not tie with the best one."""
        runs = [run_of(LARGE, wer=2.0), run_of(TURBO, wer=9.0), run_of(FP8, wer=9.0)]
        assert [row[1:] for row in ranks(board_of(*runs))] == [(1, False), (2, True), (2, True)]

    def test_of_equally_accurate_ones_the_nearest_is_tested_against(self) -> None:
        """A row is worse than the best ones only if it is worse than each of them, in any order."""
        flat, lumpy = [1] * 80, [0, 2] * 40
        runs = [run_of(LARGE, wer=5.0), run_of(TURBO, wer=5.0), run_of(FP8, wer=5.3)]
        texts = dict(zip((r.run_id for r in runs), map(spoken, (flat, lumpy, [*lumpy[:70], *[2] * 10])), strict=True))
        found = {board_of(*order, transcripts=texts).rows[2].test for order in itertools.permutations(runs)}
        assert len(found) == 1

    def test_of_equal_wers_the_faster_comes_first(self) -> None:
        """The order does not depend on the run ids."""
        for _ in range(8):
            board = board_of(run_of(LARGE, wer=2.0, rate=40.0), run_of(TURBO, wer=2.0, rate=60.0))
            assert [row.system.model for row in board.rows if row.most_accurate] == ["large-v3-turbo", "large-v3"]

    def test_a_single_configuration_is_not_ranked(self) -> None:
        """It has no rank, and is neither best nor Pareto-optimal."""
        (row,) = board_of(run_of(LARGE)).rows
        assert (row.rank, row.most_accurate, row.pareto, row.tied) == (None, False, False, False)

    def test_a_run_without_a_wer_has_no_rank(self) -> None:
        """It is the last row, without a rank."""
        assert [row[1] for row in ranks(board_of(run_of(LARGE, wer=float("nan")), run_of(TURBO)))] == [1, None]

    def test_a_leaderboard_without_any_wer_is_ranked_by_throughput(self) -> None:
        """Rates can be compared without references."""
        board = board_of(run_of(LARGE, wer=None, rate=10.0), run_of(TURBO, wer=None, rate=20.0))
        assert board.sort == "reqs_per_sec"
        assert [row.system.model for row in board.rows] == ["large-v3-turbo", "large-v3"]


class TestRankByRate:
    def test_what_is_within_the_noise_ties(self) -> None:
        """Single runs have the noise of the repeated ones; the next rank follows the number of tied systems."""
        fast = [run_of(LARGE, rate=r) for r in (39.8, 40.0, 40.2)]
        slow = [run_of(BenchmarkConfig(model=name), rate=r) for name, r in (("base", 30.0), ("tiny", 29.7))]
        board = board_of(*fast, run_of(FP8, rate=39.7), *slow, sort="reqs_per_sec")
        assert [row[1:] for row in ranks(board)] == [(1, True), (1, True), (3, True), (3, True)]

    def test_one_bad_repeat_makes_no_tie(self) -> None:
        """The range of its repeats overlaps the rate of the other system."""
        fast, slow = [run_of(LARGE, rate=r) for r in (3.0, 3.05, 3.1)], [run_of(FP8, rate=r) for r in (1.6, 1.64, 3.2)]
        assert [row[1:] for row in ranks(board_of(*fast, *slow, sort="reqs_per_sec"))] == [(1, False), (2, False)]

    def test_without_repeats_rates_have_no_ranks(self) -> None:
        """Two single runs are ordered without ranks, even if runs on another GPU were repeated."""
        runs = [run_of(LARGE, rate=3.34), run_of(FP8, rate=3.30), *(run_of(gpu=A10, rate=r) for r in (1.0, 1.1, 1.2))]
        board = board_of(*runs, sort="reqs_per_sec")
        assert [(row.system.gpu, row.rank) for row in board.rows] == [(H100, None), (H100, None), (A10, 1)]
        assert "No ranks on NVIDIA H100 80GB HBM3: no configuration was repeated there" in explanation(board)
        assert [row.rate_interval is None for row in board.rows] == [True, True, False]

    def test_a_very_wide_interval_is_not_shown(self) -> None:
        """With two very different repeats as the only estimate of the noise, the limits differ by a large factor."""
        board = board_of(
            run_of(LARGE, rate=10.0), run_of(LARGE, rate=60.0), run_of(FP8, rate=30.0), sort="reqs_per_sec"
        )
        assert [(row.rank, row.tied, row.rate_interval) for row in board.rows] == [(1, True, None)] * 2

    def test_each_gpu_has_its_own_ranks(self) -> None:
        """Rates are ranked inside one speed key and shown side by side across GPUs."""
        known = [(LARGE, H100, 40.0), (LARGE, H100, 40.1), (FP8, H100, 50.0), (LARGE, A10, 9.0)]
        board = board_of(*(run_of(c, gpu=g, rate=r) for c, g, r in known), sort="reqs_per_sec")
        assert [(r.system.gpu, r.rank) for r in board.rows] == [(H100, 1), (H100, 2), (A10, 1)]

    def test_a_rate_of_zero_has_no_rank(self) -> None:
        """0 reqs/sec is not a valid measurement."""
        runs = [run_of(LARGE, rate=r) for r in (40.0, 41.0)]
        assert [row[1] for row in ranks(board_of(*runs, run_of(FP8, rate=0.0), sort="reqs_per_sec"))] == [1, None]

    def test_less_energy_is_better(self) -> None:
        """Lower energy and cost have better ranks."""
        runs = [run_of(c, metrics={"energy_wh_per_audio_hour": e}) for c, e in ((LARGE, 2.0), (TURBO, 1.0))]
        assert board_of(*runs, sort="energy").rows[0].system.model == "large-v3-turbo"


class TestShortAnswer:
    def test_the_fastest_of_each_gpu_and_model(self) -> None:
        """One row per pair."""
        runs = [
            run_of(LARGE, rate=40.0),
            run_of(FP8, rate=45.0),
            run_of(TURBO, rate=60.0),
            run_of(LARGE, gpu=A10, rate=9.0),
        ]
        found = [row.system.label for row in best_per_gpu_and_model(board_of(*runs))]
        assert found == ["large-v3-turbo", "large-v3 fp8", "large-v3"]

    def test_it_follows_the_order_of_the_leaderboard(self) -> None:
        """The cheapest of each GPU and model, the cheapest first."""
        costs = ((H100, LARGE, 0.2), (H100, FP8, 0.3), (A10, LARGE, 0.1))
        runs = [run_of(c, gpu=gpu, metrics={"usd_per_audio_hour": usd}) for gpu, c, usd in costs]
        found = best_per_gpu_and_model(board_of(*runs, sort="cost"))
        assert [(row.system.gpu, row.system.median("usd_per_audio_hour")) for row in found] == [(A10, 0.1), (H100, 0.2)]

    def test_pareto_keeps_undominated_systems_of_each_gpu(self) -> None:
        """A slower and less accurate system is dominated, but not by a system on another GPU."""
        best = run_of(LARGE, wer=2.0, rate=40.0)
        fast, beaten = run_of(TURBO, wer=2.5, rate=60.0), run_of(FP8, wer=2.4, rate=39.0)
        small = run_of(FP8, wer=2.4, rate=9.0, gpu=A10)
        assert [c.newest for c in pareto(systems([best, fast, beaten, small]))] == [fast, best, small]

    @pytest.mark.parametrize("seed", range(20))
    def test_pareto_agrees_with_the_definition(self, seed: int) -> None:
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
    assert found[:8] == ["rank", "model", "gpu", "stride", "engines per GPU", "WER %", "reqs/sec", "RTFx"]
    assert found[8:10] == ["engine", "run"]
    assert "stride" not in [column.heading for column in shown_columns(board_of(run_of(LARGE), run_of(TURBO)))]
