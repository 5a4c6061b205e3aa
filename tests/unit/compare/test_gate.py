"""The runs that the gate compares, its three outcomes, and their error rates in simulations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.support.stores import run_of, spoken
from whisperbench.compare.gate import Verdict, gate_case, judge, judge_speed, matching_runs
from whisperbench.compare.verdicts import wer_difference
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.errors import ComparisonError
from whisperbench.results.names import COMMIT
from whisperbench.results.record import RunRecord
from whisperbench.results.transcripts import read_table
from whisperbench.stats.rates import rate_difference

A10 = "NVIDIA A10"
LARGE = BenchmarkConfig(model="large-v3")
TURBO = BenchmarkConfig(model="large-v3-turbo")
FP8 = BenchmarkConfig(model="large-v3", kv_cache_dtype="fp8")
NAME = "large-v3-auto-128"


def speed_of(baseline: Sequence[float], candidate: Sequence[float], *, allowed: float = 5.0) -> Verdict:
    found = rate_difference([[rate] for rate in baseline], [[rate] for rate in candidate])
    assert found is not None
    return judge_speed(found, allowed)


class TestCase:
    def test_the_newest_run_is_judged_against_the_named_ones(self) -> None:
        """The baseline of a run name is all runs of that name except the candidate."""
        old, older, new = run_of(day=1), run_of(day=0), run_of(day=2)
        found = gate_case([old, new, older], NAME)
        assert (found.candidate.runs, found.baseline.runs) == ((new,), (old, older))

    def test_repeats_of_the_newest_run_are_candidates_too(self) -> None:
        """They have its commit and its settings; otherwise a regression would hide in its own baseline."""
        old = [run_of(day=day, tags={COMMIT: "a"}) for day in (0, 1)]
        new = [run_of(day=day, tags={COMMIT: "b"}) for day in (2, 3)]
        found = gate_case([*old, *new], NAME)
        assert (found.candidate.runs, found.baseline.runs) == (tuple(new[::-1]), tuple(old[::-1]))
        with pytest.raises(ComparisonError, match="belongs to the candidate"):
            gate_case(new, NAME)

    def test_named_candidates(self) -> None:
        """They may have other settings, but must be repeats of each other."""
        old, fast, faster, other = run_of(), run_of(FP8, day=1), run_of(FP8, day=2), run_of(TURBO, day=3)
        runs = [old, fast, faster, other]
        found = gate_case(runs, old.run_id, [fast.run_id, faster.run_id])
        assert (found.candidate.runs, found.baseline.runs) == ((faster, fast), (old,))
        with pytest.raises(ComparisonError, match="not repeats of one configuration"):
            gate_case(runs, old.run_id, [fast.run_id, other.run_id])
        with pytest.raises(ComparisonError, match="is not among the finished runs"):
            gate_case(runs, old.run_id, [fast.run_id, "0" * 32])

    def test_the_newest_run_has_the_settings_of_the_baseline(self) -> None:
        """Otherwise a setting would be judged as a regression of the code; the message names it."""
        old, new = run_of(day=0), run_of(FP8, day=1)
        with pytest.raises(ComparisonError, match="kv_cache_dtype: fp8 instead of auto"):
            gate_case([old, new], old.run_id)

    @pytest.mark.parametrize("digits", [4, 8, 32])
    def test_a_run_id_may_be_shortened(self, digits: int) -> None:
        """From four digits on."""
        old, new = run_of(day=0), run_of(day=1)
        assert gate_case([old, new], old.run_id[:digits]).baseline.newest is old

    def test_a_run_id_names_its_repeats_too(self) -> None:
        """Those of the same commit, because the gate decides nothing on one run of the baseline."""
        old = [run_of(day=day, tags={COMMIT: "a"}) for day in (0, 1)]
        new = run_of(day=2, tags={COMMIT: "b"})
        assert gate_case([*old, new], old[0].run_id).baseline.runs == tuple(old[::-1])

    def test_a_digest_names_a_configuration_too(self) -> None:
        """The first 8 digits of a config digest are sufficient."""
        old, new = run_of(FP8, day=0), run_of(FP8, day=1)
        assert gate_case([old, new], FP8.digest[:8]).baseline.newest is old

    def test_another_gpu_may_not_be_compared(self) -> None:
        """The error names the field and both values, and its status is 2; a data set has its name."""
        old, new = run_of(gpu=A10), run_of(dataset="e2" * 16, day=1)
        with pytest.raises(ComparisonError, match="gpu: NVIDIA H100 80GB HBM3 instead of NVIDIA A10") as caught:
            gate_case([old, new], old.run_id)
        assert "dataset: librispeech test-clean (e2e2e2e2) instead of librispeech" in str(caught.value)
        assert caught.value.exit_status == 2

    @pytest.mark.parametrize("baseline", ["unknown", "0" * 32])
    def test_an_unknown_baseline_is_an_error(self, baseline: str) -> None:
        """The message lists the newest run of each name, with its id."""
        run = run_of()
        with pytest.raises(ComparisonError, match=rf"Choose one of {NAME} \({run.run_id[:8]}\)"):
            matching_runs([run], baseline)

    def test_a_baseline_that_is_alone_is_an_error(self) -> None:
        """A single run cannot be both candidate and baseline."""
        only = run_of()
        with pytest.raises(ComparisonError, match="No run was found to compare"):
            gate_case([only], only.run_id)
        with pytest.raises(ComparisonError, match="belongs to the candidate"):
            gate_case([only], only.name)


class TestSpeed:
    @pytest.mark.parametrize(
        ("baseline", "candidate", "status", "advice"),
        [
            ([100, 101, 99], [100, 100.5], 0, ""),
            ([100, 101, 99], [100], 0, ""),
            ([100, 101, 99], [90, 90.5], 1, ""),
            ([100, 101, 99], [90], 2, "Measure 1 more run of the candidate, because one run is no proof"),
            ([100, 102, 98], [95, 97], 2, "Runs scatter by 1.8 %. Measure 1 more run of the baseline and 2 more runs"),
            ([100, 101], [100], 2, "Measure 1 more run of the candidate."),
            ([100], [100, 99, 101], 2, "Measure 1 more run of the baseline."),
            ([100], [50], 2, "Measure 1 more run of the baseline and 1 more run of the candidate."),
            ([4.03, 0.64, 4.32, 1.46], [1.91], 2, "which is too much for a limit of 5 %. Measure on an idle machine"),
        ],
    )
    def test_outcomes(self, baseline: list[float], candidate: list[float], status: int, advice: str) -> None:
        """0, 1, and undecided with what to run; a noisy machine is never a pass."""
        verdict = speed_of(baseline, candidate)
        assert (verdict.status, advice in verdict.sentence) == (status, True), verdict.sentence

    def test_figures_and_interval_are_one_estimate(self) -> None:
        """The change is that of the printed figures, and lies inside the printed interval."""
        sentence = speed_of([100, 101, 99], [90, 90.5]).sentence
        assert sentence.startswith("Throughput: 90.25 reqs/sec instead of 100.00 (-9.7 %, 95 % interval -11.9 to")
        assert "2 against 3 runs, allowed -5 %" in sentence

    @pytest.mark.parametrize("runs", [2, 3, 5])
    @pytest.mark.parametrize("noise", [0.01, 0.03, 0.1])
    def test_a_candidate_at_the_limit(self, noise: float, runs: int) -> None:
        """Exactly 5 % slower: it passes and fails in at most 4 % of cases each; the level is 2.5 %."""
        generator, statuses = np.random.default_rng(31), []
        for _ in range(1_500):
            a, b = np.exp(noise * generator.standard_normal((2, runs)))
            statuses.append(speed_of(a, 0.95 * b).status)
        assert max(statuses.count(0), statuses.count(1)) <= 0.04 * len(statuses)

    def test_power(self) -> None:
        """At 1 % noise and three runs each, equal ones pass and a loss of 10 % fails in more than 95 %."""
        generator, equal, slower = np.random.default_rng(32), [], []
        for _ in range(500):
            a, b = np.exp(0.01 * generator.standard_normal((2, 3)))
            equal.append(speed_of(a, b).status)
            slower.append(speed_of(a, 0.9 * b).status)
        assert min(equal.count(0), slower.count(1)) >= 0.95 * 500

    def test_a_much_slower_candidate_never_passes(self) -> None:
        """20 % slower at 3 % noise with 2 + 1 runs, of which earlier gates passed 71 %."""
        generator = np.random.default_rng(33)
        for _ in range(200):
            rates = np.exp(0.03 * generator.standard_normal(3))
            assert speed_of(rates[:2], 0.8 * rates[2:]).status == 2

    def test_looking_three_times(self) -> None:
        """Candidate runs are added until it decides, at most three: a loss of exactly 5 % passes in at most 6 %."""
        generator, passed = np.random.default_rng(34), 0
        for _ in range(1_500):
            a, b = np.exp(0.03 * generator.standard_normal((2, 3)))
            looks = (speed_of(a, 0.95 * b[:k]).status for k in (1, 2, 3))
            passed += next((status for status in looks if status != 2), 2) == 0
        assert passed <= 0.06 * 1_500


class TestJudge:
    def runs(self, rate: float = 40.0) -> list[RunRecord]:
        """Three runs of the baseline and two newer ones of the candidate with that rate."""
        old = [run_of(rate=r, tags={COMMIT: "a"}) for r in (39.9, 40.0, 40.1)]
        return [*old, *(run_of(rate=rate * f, day=1, tags={COMMIT: "b"}) for f in (1.0, 1.001))]

    @pytest.mark.parametrize(
        ("errors", "rate", "status", "opening"),
        [
            ([1] * 400, 40.0, 0, "No regression: large-v3"),
            ([0] * 400, 40.0, 0, "No regression"),
            ([2] * 400, 40.0, 1, "REGRESSION of WER: "),
            ([1] * 400, 30.0, 1, "REGRESSION of throughput: "),
            ([2] * 400, 30.0, 1, "REGRESSION of WER and throughput: "),
            ([1, 1, 1, 1, 1, 1, 1, 2] * 50, 40.0, 1, "REGRESSION of WER"),
            ([1] * 392 + [3] * 8, 40.0, 2, "UNDECIDED for WER: "),
        ],
    )
    def test_accuracy_and_speed(self, errors: list[int], rate: float, status: int, opening: str) -> None:
        """One error in 20 words is 5 %; a regression of either is status 1, else an undecided one is 2."""
        tables = (read_table(spoken(each, per_speaker=20)) for each in ([1] * 400, errors))
        verdict = judge(gate_case(self.runs(rate), NAME), wer_difference(*tables, margin=0.2), 0.2, 5.0)
        assert (verdict.status, verdict.sentence.startswith(opening)) == (status, True), verdict.sentence
        assert "WER: " in verdict.sentence
        assert "Throughput: " in verdict.sentence

    def test_less_than_the_margin_is_no_regression(self) -> None:
        """Significantly worse by less than 0.5 points is “same within 0.5 points”."""
        tables = (read_table(spoken(e, per_speaker=20)) for e in ([1] * 400, [2 - (n % 20 > 0) for n in range(400)]))
        verdict = judge(gate_case(self.runs(), NAME), wer_difference(*tables, margin=0.5), 0.5, 5.0)
        assert verdict.status == 0
        assert "WER: same within 0.5 points" in verdict.sentence

    def test_loops_are_counted_beside_the_verdict(self) -> None:
        """A set without a loop cannot exclude them."""
        runs = [run_of(day=day, metrics={"repetition_loops": 0.0, "utterances": 1_313.0}) for day in range(2)]
        tables = (read_table(spoken([1] * 80)) for _ in range(2))
        sentence = judge(gate_case(runs, NAME), wer_difference(*tables, margin=0.2), 0.2, 5.0).sentence
        assert "loops: 0 of 1,313 (at most 0.23 % of clips)" in sentence

    def test_a_wer_that_cannot_be_compared_is_an_error(self) -> None:
        """Without transcripts the gate ends with status 2 instead of 0."""
        with pytest.raises(ComparisonError, match="no transcripts") as caught:
            judge(gate_case(self.runs(), NAME), "no transcripts", 0.2, 5.0)
        assert caught.value.exit_status == 2

    def test_without_a_wer_the_rate_decides(self) -> None:
        """Random weights have no WER; a missing rate is an error."""
        runs = [run_of(wer=None, rate=rate, day=day) for day, rate in enumerate((40.0, 40.1, 39.9, 40.0))]
        assert judge(gate_case(runs, NAME), None, 0.2, 5.0).status == 0
        with pytest.raises(ComparisonError, match="reqs_per_sec was not measured"):
            judge(gate_case([run_of(rate=None), run_of(rate=None, day=1)], NAME), None, 0.2, 5.0)

    def test_the_newest_runs_of_the_baseline_count(self) -> None:
        """Three, or twice as many as the candidate has, so that one slow candidate run is not outvoted."""
        baseline = [run_of(wer=None, rate=100 + n, day=n) for n in range(19)]
        verdict = judge(gate_case([*baseline, run_of(wer=None, rate=94.0, day=30)], NAME), None, 0.2, 5.0)
        assert "94.00 reqs/sec instead of 117.00 (" in verdict.sentence
        assert "1 against 3 runs" in verdict.sentence
