"""What may be ranked together, in which order, and what ties."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from tests.support.stores import H100, run_of, spoken, table_of, without_tag
from whisperbench.compare.gate import contest, judge
from whisperbench.compare.leaderboard import Board, Group, Grouping, best_per_gpu_and_model, contenders, pareto, rank
from whisperbench.compare.paired_tests import compare_contenders, paired_test
from whisperbench.compare.published import beside, published_results
from whisperbench.compare.selection import selects
from whisperbench.compare.systems import Configuration, Spread, configurations
from whisperbench.errors import ComparisonError
from whisperbench.options import BenchmarkConfig, CompareConfig
from whisperbench.results.keys import differing, fields_of
from whisperbench.results.names import ACCURACY_KEY
from whisperbench.results.run_record import RunRecord
from whisperbench.results.transcripts import StoredTranscripts, read_table

A10 = "NVIDIA A10"
LARGE, TURBO = BenchmarkConfig(model="large-v3"), BenchmarkConfig(model="large-v3-turbo")
FP8 = BenchmarkConfig(model="large-v3", kv_cache_dtype="fp8")


def board_of(*runs: RunRecord, sort: str = "wer", transcripts: dict[str, str] | None = None) -> Board:
    grouping = Grouping.of(runs, sort)
    stored = {run_id: read_table(text) for run_id, text in (transcripts or {}).items()}
    return rank(grouping.groups[0], sort, compare_contenders(grouping.groups[0], stored, seed=32))


def ranks(board: Board) -> list[tuple[str, int | None, bool]]:
    return [(row.configuration.label, row.rank, row.tied) for row in board.rows]


class TestGrouping:
    def test_runs_on_other_data_are_never_ranked_together(self) -> None:
        """A group holds one accuracy key; a lone run outside it is left out with the fields and both values."""
        other = run_of(FP8, dataset="e2" * 16, wer=1.0)
        grouping = Grouping.of([run_of(LARGE), run_of(TURBO), other], "wer")
        assert len(grouping.groups) == 1
        assert [left.run for left in grouping.left_out] == [other]
        assert "dataset: librispeech test-clean (e2e2e2e2) instead of librispeech" in grouping.left_out[0].reason

    def test_another_normaliser_is_another_group(self) -> None:
        """Scores of two normalisers do not meet in one ranking."""
        grouping = Grouping.of([run_of(LARGE), run_of(TURBO), run_of(FP8, normalizer="whisper-english/9")], "wer")
        assert "normalizer: whisper-english/9 instead of whisper-english/0.1.15" in grouping.left_out[0].reason

    def test_random_weights_stand_apart(self) -> None:
        """Throughput with random weights is never ranked beside that of real weights."""
        dummies = [
            run_of(BenchmarkConfig(model=m, load_format="dummy"), wer=None, normalizer="none", rate=200.0)
            for m in ("large-v3", "base")
        ]
        grouping = Grouping.of([run_of(LARGE), run_of(TURBO), run_of(FP8), *dummies], "reqs_per_sec")
        assert [len(group.configurations) for group in grouping.groups] == [3, 2]

    def test_a_run_without_a_key_is_left_out(self) -> None:
        """Nobody knows what a run without keys may be compared with."""
        grouping = Grouping.of([run_of(LARGE), without_tag(run_of(TURBO), ACCURACY_KEY)], "wer")
        assert "no tag whisperbench.accuracy_key" in grouping.left_out[0].reason

    def test_a_run_that_measured_nothing_is_left_out(self) -> None:
        """NaN and MLflow's infinity are not measurements."""
        broken = run_of(TURBO, wer=float("nan"), rate=1.8e308)
        grouping = Grouping.of([run_of(LARGE), broken], "wer")
        assert grouping.left_out[0].reason == "neither wer nor reqs_per_sec was measured"

    def test_the_reason_names_the_nearest_group(self) -> None:
        """Of two boards the one that differs in fewer fields."""
        near = [run_of(BenchmarkConfig(model=m, limit=20)) for m in ("a", "b")]
        far = [run_of(BenchmarkConfig(model=m)) for m in ("a", "b", "c")]
        lone = run_of(BenchmarkConfig(model="a", limit=20, long_audio="trim"))
        (left,) = Grouping.of([*near, *far, lone], "wer").left_out
        assert left.reason == "nothing to be ranked against: long_audio: trim instead of split"

    def test_the_main_group_has_most_configurations(self) -> None:
        """The first board answers for the data that most was measured on."""
        few = [run_of(BenchmarkConfig(model=m, limit=20)) for m in ("a", "b")]
        many = [run_of(BenchmarkConfig(model=m)) for m in ("a", "b", "c")]
        grouping = Grouping.of([*few, *many], "wer")
        assert [group.fields["limit"] for group in grouping.groups] == ["0", "20"]


class TestRepeats:
    def test_runs_of_one_configuration_are_one_row(self) -> None:
        """Median, lowest, highest and number of the repeats."""
        (row,) = board_of(*(run_of(LARGE, rate=rate, day=i) for i, rate in enumerate((40.0, 44.0, 41.0)))).rows
        assert row.configuration.spread("reqs_per_sec") == Spread((41.0, 44.0, 40.0))
        assert row.configuration.median("reqs_per_sec") == 41.0
        assert row.configuration.newest.metric("reqs_per_sec") == 41.0

    def test_repeats_inside_a_run_count_like_runs(self) -> None:
        """A run with three repeats and one with one are four measurements."""
        inner = dataclasses.replace(run_of(LARGE, rate=41.0), history={"reqs_per_sec": (40.0, 41.0, 45.0)})
        (found,) = configurations([inner, run_of(LARGE, rate=39.0)])
        spread = found.spread("reqs_per_sec")
        assert spread is not None
        assert (spread.n, spread.low, spread.high) == (4, 39.0, 45.0)

    @pytest.mark.parametrize("params", [{"model_revision_resolved": "beef"}, {"vllm_version": "0.33.0"}])
    def test_another_revision_or_engine_is_another_configuration(self, params: dict[str, str]) -> None:
        """What computes differently is no repeat."""
        assert len(configurations([run_of(LARGE), run_of(LARGE, params=params)])) == 2

    def test_another_gpu_is_another_configuration(self) -> None:
        """One configuration is one GPU."""
        assert len(configurations([run_of(LARGE), run_of(LARGE, gpu=A10)])) == 2

    @pytest.mark.parametrize(
        ("wers", "typical"), [([3.0, 1.0, 2.0], 2.0), ([1.0, 2.0], 1.0), ([None, 2.0], 2.0), ([None, None], None)]
    )
    def test_the_typical_run_has_the_median_wer(self, wers: list[float | None], typical: float | None) -> None:
        """Of two the lower; runs without a WER do not count."""
        (found,) = configurations([run_of(LARGE, wer=wer, day=day) for day, wer in enumerate(wers)])
        assert found.wer == typical

    def test_what_does_not_compute_makes_no_difference(self) -> None:
        """Repeats may have another price and another results directory."""
        priced = BenchmarkConfig(model="large-v3", gpu_hourly_usd=2.5, results_dir="elsewhere")
        assert len(configurations([run_of(LARGE), run_of(priced)])) == 1


class TestRankByWer:
    def test_a_significantly_worse_run_comes_after(self) -> None:
        """20 speakers, each with 4 errors more: nobody calls that a tie."""
        best, worse = run_of(LARGE, wer=2.0, interval=(1, 4)), run_of(TURBO, wer=4.0, interval=(3, 6))
        transcripts = {best.run_id: spoken([1] * 80), worse.run_id: spoken([2] * 80)}
        assert ranks(board_of(worse, best, transcripts=transcripts)) == [
            ("large-v3 auto/128", 1, False),
            ("large-v3-turbo auto/128", 2, False),
        ]

    def test_a_run_that_is_not_significantly_worse_shares_the_rank(self) -> None:
        """One error more on one utterance in 80 is chance: a tie, and the next one is third."""
        best, tie = run_of(LARGE, wer=2.0, interval=(1, 4)), run_of(TURBO, wer=2.1, interval=(1, 4))
        last = run_of(FP8, wer=9.0, interval=(8, 10))
        transcripts = {best.run_id: spoken([1] * 80), tie.run_id: spoken([1] * 79 + [2])}
        assert [row[1:] for row in ranks(board_of(last, tie, best, transcripts=transcripts))] == [
            (1, True),
            (1, True),
            (3, False),
        ]

    def test_no_test_is_asked_for_where_the_intervals_are_apart(self) -> None:
        """Transcripts are needed of the best and of those whose interval reaches into its own."""
        best, near = run_of(LARGE, wer=2.0, interval=(1.5, 2.5)), run_of(TURBO, wer=2.6, interval=(2.4, 3))
        far = run_of(FP8, wer=5.0, interval=(4, 6))
        (group,) = Grouping.of([far, near, best], "wer").groups
        assert [c.newest for c in contenders(group)] == [best, near]

    def test_without_transcripts_runs_are_ranked_and_marked(self) -> None:
        """No paired test, no tie, and the row says why."""
        best, other = run_of(LARGE, wer=2.0), run_of(TURBO, wer=2.1)
        board = board_of(best, other, transcripts={best.run_id: spoken([1] * 8)})
        assert [row[1] for row in ranks(board)] == [1, 2]
        assert board.rows[1].no_test == "no transcripts"

    def test_a_best_run_without_transcripts_is_marked_too(self) -> None:
        """It is the reason why nobody was tested."""
        best, other = run_of(LARGE, wer=2.0), run_of(TURBO, wer=2.1)
        board = board_of(best, other, transcripts={other.run_id: spoken([1] * 8)})
        assert [row.no_test for row in board.rows] == ["no transcripts"] * 2

    def test_equal_wers_tie_without_a_test(self) -> None:
        """The same figure is the same rank."""
        assert [row[1:] for row in ranks(board_of(run_of(LARGE, wer=2.0), run_of(TURBO, wer=2.0)))] == [(1, True)] * 2

    def test_a_run_without_a_wer_has_no_rank(self) -> None:
        """It is shown, last, and not ranked."""
        assert [row[1] for row in ranks(board_of(run_of(LARGE, wer=float("nan")), run_of(TURBO)))] == [1, None]

    def test_a_board_without_any_wer_is_ranked_by_throughput(self) -> None:
        """Data without transcripts still tells which settings are fast."""
        board = board_of(run_of(LARGE, wer=None, rate=10.0), run_of(TURBO, wer=None, rate=20.0))
        assert board.sort == "reqs_per_sec"
        assert [row.configuration.model for row in board.rows] == ["large-v3-turbo", "large-v3"]


class TestRankByRate:
    def test_ranges_that_overlap_tie(self) -> None:
        """A difference inside the spread is a tie; the next one has the rank of its place."""
        fast = [run_of(LARGE, rate=r) for r in (39.0, 41.0)]
        tied = [run_of(FP8, rate=r) for r in (38.0, 39.5)]
        board = board_of(*fast, *tied, run_of(TURBO, rate=30.0), sort="reqs_per_sec")
        assert [row[1:] for row in ranks(board)] == [(1, True), (1, True), (3, False)]

    def test_each_gpu_has_its_own_ranks(self) -> None:
        """Rates are ranked inside one speed key and shown side by side across GPUs."""
        runs = [run_of(c, gpu=g, rate=r) for c, g, r in ((LARGE, H100, 40.0), (FP8, H100, 50.0), (LARGE, A10, 9.0))]
        board = board_of(*runs, sort="reqs_per_sec")
        assert [(r.configuration.gpu, r.rank) for r in board.rows] == [(H100, 1), (H100, 2), (A10, 1)]

    def test_less_energy_is_better(self) -> None:
        """Energy and cost are ranked upwards."""
        runs = [run_of(c, metrics={"energy_wh_per_audio_hour": e}) for c, e in ((LARGE, 2.0), (TURBO, 1.0))]
        assert board_of(*runs, sort="energy").rows[0].configuration.model == "large-v3-turbo"


class TestShortAnswer:
    def test_the_fastest_of_each_gpu_and_model(self) -> None:
        """One row per pair."""
        runs = [
            run_of(LARGE, rate=40.0),
            run_of(FP8, rate=45.0),
            run_of(TURBO, rate=60.0),
            run_of(LARGE, gpu=A10, rate=9.0),
        ]
        found = [row.configuration.label for row in best_per_gpu_and_model(board_of(*runs))]
        assert found == ["large-v3-turbo auto/128", "large-v3 fp8/128", "large-v3 auto/128"]

    def test_pareto_keeps_what_nothing_beats_on_its_gpu(self) -> None:
        """Slower and less accurate than another is beaten; on another GPU nothing is."""
        best = run_of(LARGE, wer=2.0, rate=40.0)
        fast, beaten = run_of(TURBO, wer=2.5, rate=60.0), run_of(FP8, wer=2.4, rate=39.0)
        small = run_of(FP8, wer=2.4, rate=9.0, gpu=A10)
        assert [c.newest for c in pareto(configurations([best, fast, beaten, small]))] == [fast, best, small]

    @pytest.mark.parametrize("seed", range(20))
    def test_pareto_agrees_with_the_definition(self, seed: int) -> None:
        """On random figures: kept exactly when no other is as good in both and better in one."""
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
        assert {c.newest.run_id for c in pareto(configurations(runs))} == figures.keys() - beaten


class TestPairedTest:
    def test_a_difference_worked_out_by_hand(self) -> None:
        """3 errors more in 40 words are +7.5 points, and swapping the runs swaps the sign."""
        a, b = (read_table(spoken(errors, words=10)) for errors in ([2, 1, 1, 1], [1, 1, 0, 0]))
        forth, back = paired_test(a, b, 32), paired_test(b, a, 32)
        assert not isinstance(forth, str)
        assert not isinstance(back, str)
        assert forth.difference == pytest.approx(7.5)
        assert back.difference == pytest.approx(-7.5)

    @pytest.mark.parametrize(
        ("other", "reason"),
        [
            (None, "no transcripts"),
            (spoken([1, 1, 1]), "different utterances (1 are in one run only)"),
            (spoken([1, 1], words=9), "different references (2 utterances)"),
            (table_of([("u0000", "s", "a", "a", 0, 20)] * 2), "an utterance occurs twice"),
            (
                table_of([("u0000", "s", None, "a", None, None), ("u0001", "s", None, "a", None, None)]),
                "different references",
            ),
            ("{}", "no transcripts"),
            ('{"columns": ["utt_id"], "data": [["u"]]}', "no transcripts"),
        ],
    )
    def test_what_cannot_be_paired_says_why(self, other: str | None, reason: str) -> None:
        """Different utterances, references, or nothing to read."""
        found = paired_test(read_table(spoken([1, 1])), None if other is None else read_table(other), 32)
        assert isinstance(found, str)
        assert found.startswith(reason)

    def test_a_single_utterance_tells_nothing(self) -> None:
        """One cluster: never significant."""
        found = paired_test(read_table(spoken([9])), read_table(spoken([0])), 32)
        assert not isinstance(found, str)
        assert not found.significant

    def test_speakers_are_resampled_where_they_are_known(self) -> None:
        """One speaker is one cluster and proves nothing; without speakers each utterance is a cluster."""

        def errors_of(speakers: list[str | None], errors: int) -> StoredTranscripts | None:
            return read_table(table_of((f"u{i:02d}", who, "a", "b", errors, 20) for i, who in enumerate(speakers)))

        cases: list[list[str | None]] = [["s"] * 40, [None] * 40, ["s", None] * 20]
        one_speaker, unknown, half_known = (
            paired_test(errors_of(speakers, 2), errors_of(speakers, 1), 32) for speakers in cases
        )
        assert not isinstance(one_speaker, str)
        assert not isinstance(unknown, str)
        assert (one_speaker.significant, unknown.significant) == (False, True)
        assert half_known == unknown

    def test_counts_that_are_missing_cannot_be_paired(self) -> None:
        """A row without counts in both runs has no references."""
        stored = read_table(table_of([("u0", "s", None, "a", None, None), ("u1", "s", "a", "a", 0, 1)]))
        assert paired_test(stored, stored, 32) == "no references"

    def test_no_errors_at_all(self) -> None:
        """A WER of 0 against a WER of 0 is a tie."""
        found = paired_test(read_table(spoken([0] * 20)), read_table(spoken([0] * 20)), 32)
        assert not isinstance(found, str)
        assert (found.difference, found.significant) == (0.0, False)


class TestPublished:
    def test_the_package_has_all_thirteen(self) -> None:
        """6 of the A10, 6 of the H100, 1 of the GB200."""
        found = published_results()
        assert [sum(p.gpu == gpu for p in found) for gpu in ("A10", "H100", "GB200")] == [6, 6, 1]
        assert max(found, key=lambda p: p.reqs_per_sec).reqs_per_sec == 50.23

    def test_a_row_stands_beside_the_run_with_its_settings(self) -> None:
        """The ratio is measured over published throughput."""
        found = beside(configurations([run_of(LARGE, rate=70.6), run_of(FP8, rate=100.0)]))
        row = next(
            each for each in found if each.published.label == "large-v3 auto/128" and each.published.gpu == "H100"
        )
        assert row.ratio == pytest.approx(2.0)
        assert row.caveats == ()

    def test_real_weights_come_before_random_ones(self) -> None:
        """However fast random weights are."""
        dummy = BenchmarkConfig(model="large-v3", load_format="dummy")
        random = run_of(dummy, wer=None, rate=90.0, tags={"whisperbench.random_weights": "true"})
        row = next(each for each in beside(configurations([random, run_of(LARGE, rate=70.0)])) if each.configuration)
        assert row.measured_reqs_per_sec == 70.0

    def test_what_is_not_alike_is_said(self) -> None:
        """Other settings, fewer utterances and random weights are named beside the ratio."""
        config = BenchmarkConfig(model="large-v3", max_num_seqs=384, load_format="dummy")
        run = run_of(config, wer=None, metrics={"utterances": 60.0}, tags={"whisperbench.random_weights": "true"})
        row = next(each for each in beside(configurations([run])) if each.configuration)
        assert row.caveats == ("other settings", "random weights", "other data: 60 utterances")

    @pytest.mark.parametrize(
        ("gpu", "model", "fits"),
        [
            ("NVIDIA A10", "large-v3", True),
            ("NVIDIA A100 80GB PCIe", "large-v3", False),
            ("NVIDIA A10G", "large-v3", False),
            ("NVIDIA A10", "distil-large-v3", False),
            ("NVIDIA A10", "large-v3-turbo", False),
        ],
    )
    def test_families_and_models_are_told_apart(self, gpu: str, model: str, fits: bool) -> None:
        """A10 is not A100; large-v3 is neither turbo nor distilled."""
        run = Configuration((run_of(BenchmarkConfig(model=model), gpu=gpu),))
        assert published_results()[0].is_of(run) is fits


class TestGate:
    def test_the_newest_run_is_judged_against_the_named_ones(self) -> None:
        """A name stands for all its runs but the candidate."""
        old, older, new = run_of(day=1), run_of(day=0), run_of(day=2)
        found = contest([old, new, older], "large-v3-auto-128", None)
        assert (found.candidate, found.baseline.runs) == (new, (old, older))

    def test_a_digest_names_a_configuration_too(self) -> None:
        """Its first 8 digits do."""
        old, new = run_of(FP8, day=0), run_of(LARGE, day=1)
        assert contest([old, new], FP8.digest[:8], None).baseline.newest is old

    def test_another_gpu_may_not_be_compared(self) -> None:
        """The error names the field and both values, and its status is 2."""
        old, new = run_of(gpu=A10), run_of(TURBO, day=1)
        with pytest.raises(ComparisonError, match="gpu: NVIDIA H100 80GB HBM3 instead of NVIDIA A10") as caught:
            contest([old, new], old.run_id, None)
        assert caught.value.exit_status == 2

    @pytest.mark.parametrize("baseline", ["nobody", "0" * 32])
    def test_an_unknown_baseline_is_an_error(self, baseline: str) -> None:
        """It says which names there are."""
        with pytest.raises(ComparisonError, match="large-v3-auto-128"):
            contest([run_of()], baseline, None)

    def test_a_baseline_that_is_alone_is_an_error(self) -> None:
        """There must be something to judge, and something to judge it by."""
        only = run_of()
        with pytest.raises(ComparisonError, match="no run to judge"):
            contest([only], only.run_id, None)
        with pytest.raises(ComparisonError, match="the candidate itself"):
            contest([only], only.name, None)

    @pytest.mark.parametrize(("rate", "regression"), [(39.0, False), (36.2, False), (35.0, True)])
    def test_slower_is_beyond_the_spread_and_the_allowance(self, rate: float, regression: bool) -> None:
        """Baseline 38 to 42: 5 % under its lower end is 36.1."""
        baseline = [run_of(rate=r, wer=None) for r in (38.0, 42.0)]
        candidate = run_of(rate=rate, wer=None, day=1)
        verdict = judge(contest([*baseline, candidate], "large-v3-auto-128", None), None, 5.0)
        assert verdict.regression is regression
        assert f"{rate:.2f} reqs/sec instead of 40.00" in verdict.sentence

    @pytest.mark.parametrize(("errors", "regression"), [([1] * 79 + [2], False), ([2] * 80, True), ([0] * 80, False)])
    def test_less_accurate_is_significantly_so(self, errors: list[int], regression: bool) -> None:
        """One error in 1,600 words is chance; one per utterance is not; fewer errors are welcome."""
        found = contest([run_of(), run_of(day=1)], "large-v3-auto-128", None)
        test = paired_test(read_table(spoken(errors)), read_table(spoken([1] * 80)), 32)
        assert judge(found, test, 5.0).regression is regression

    def test_a_wer_that_cannot_be_tested_is_not_waved_through(self) -> None:
        """No transcripts: status 2, not 0."""
        found = contest([run_of(), run_of(day=1)], "large-v3-auto-128", None)
        with pytest.raises(ComparisonError, match="no transcripts"):
            judge(found, "no transcripts", 5.0)


class TestSelection:
    @pytest.mark.parametrize(
        ("options", "selected"),
        [
            ({"gpu": "H100"}, True),
            ({"gpu": "*h100*"}, True),
            ({"gpu": "H100*"}, False),
            ({"gpu": "A10"}, False),
            ({"model": "large-v3"}, True),
            ({"model": "openai/whisper-large-v3"}, True),
            ({"model": "large-v3-*"}, False),
            ({"model": "*turbo*"}, False),
        ],
    )
    def test_globs(self, options: dict[str, str], selected: bool) -> None:
        """A GPU by any part of its name, a model by its whole name, or a pattern."""
        assert selects(CompareConfig(**options), run_of(LARGE)) is selected  # type: ignore[arg-type]


def test_keys_say_where_they_differ() -> None:
    """Field by field, also where one key lacks a field."""
    assert differing(fields_of("a=1|b=x=y"), fields_of("a=2|b=x=y|c=3")) == {"a": ("1", "2"), "c": ("not set", "3")}


def test_a_group_names_its_data() -> None:
    """The corpus's last part and the split."""
    config = BenchmarkConfig(corpus="/data/LibriSpeech/", split="dev-clean")
    assert Group({}, configurations([run_of(config)])).data == "LibriSpeech dev-clean"
