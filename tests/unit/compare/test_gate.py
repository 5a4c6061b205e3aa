"""The runs that the gate compares, its three outcomes, and their error rates in simulations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from tests.support.reports import A10, FP8, TURBO
from tests.support.stores import run_of, spoken, without_tag
from whisperbench.compare.gate import Verdict, gate_case, judge, judge_speed, matching_runs
from whisperbench.compare.verdicts import wer_difference
from whisperbench.errors import ComparisonError
from whisperbench.results.names import ACCURACY_KEY, COMMIT, REPEATS
from whisperbench.results.record import RunRecord
from whisperbench.results.transcripts import read_table
from whisperbench.stats.paired import PairedDifference
from whisperbench.stats.rates import rate_difference

NAME = "large-v3-auto-128"


def runs_of(records: Sequence[RunRecord], baseline: str, *candidates: str) -> tuple[list[RunRecord], list[RunRecord]]:
    """The runs of the candidate and of the baseline."""
    candidate, expected = gate_case(records, baseline, candidates)
    return list(candidate.runs), list(expected.runs)


def verdict_of(
    records: Sequence[RunRecord], wer: PairedDifference | str | None = None, *, margin: float = 0.2, name: str = NAME
) -> Verdict:
    return judge(*gate_case(records, name), name, wer, margin, 5.0)


def speed_of(baseline: Sequence[float], candidate: Sequence[float]) -> Verdict:
    found = rate_difference([[rate] for rate in baseline], [[rate] for rate in candidate])
    assert found is not None
    return judge_speed(found, 5.0)


class TestCase:
    def test_the_newest_run_and_its_repeats_are_judged(self) -> None:
        """A run repeats the newest one if commit and settings are equal; the others of the name are the baseline."""
        old = [run_of(day=day, tags={COMMIT: "a"}) for day in (1, 0)]
        new = [run_of(day=day, tags={COMMIT: "b"}) for day in (3, 2)]
        assert runs_of([*old, *new], NAME) == (new, old)
        without_commit = run_of(day=4)
        assert runs_of([*old, without_commit, *new], NAME) == ([without_commit], [*new, *old])

    def test_named_candidates(self) -> None:
        """They may have other settings, but must be repeats of each other."""
        old, fast, faster, other = run_of(), run_of(FP8, day=1), run_of(FP8, day=2), run_of(TURBO, day=3)
        runs = [old, fast, faster, other]
        assert runs_of(runs, old.run_id, fast.run_id, faster.run_id) == ([faster, fast], [old])
        with pytest.raises(ComparisonError, match="not repeats of one configuration"):
            gate_case(runs, old.run_id, [fast.run_id, other.run_id])
        with pytest.raises(ComparisonError, match="is not among the finished runs"):
            gate_case(runs, old.run_id, [fast.run_id, "0" * 32])

    @pytest.mark.parametrize("digits", [4, 32])
    def test_a_run_id_names_its_repeats_too(self, digits: int) -> None:
        """Those of the same commit, because the gate decides nothing on one run; from four digits on."""
        old = [run_of(day=day, tags={COMMIT: "a"}) for day in (1, 0)]
        new = run_of(day=2, tags={COMMIT: "b"})
        assert runs_of([*old, new], old[1].run_id[:digits]) == ([new], old)

    def test_digits_of_several_runs_are_refused(self) -> None:
        """Otherwise the newest of them would be the baseline."""
        old, other = (dataclasses.replace(run_of(), run_id=f"abcd{digit}") for digit in (1, 2))
        with pytest.raises(ComparisonError, match=r"ids of several runs begin with 'abcd': abcd2, abcd1\. Write more"):
            gate_case([old, other, run_of(day=1)], "abcd")

    def test_a_digest_names_a_configuration_too(self) -> None:
        """The first 8 digits of a config digest are sufficient."""
        old, new = run_of(FP8, day=0), run_of(FP8, day=1)
        assert runs_of([old, new], FP8.digest[:8]) == ([new], [old])

    def test_what_may_not_be_compared(self) -> None:
        """The error names the baseline as the user wrote it, the fields and both values; its status is 2."""
        old = [run_of(name="mine", gpu=A10, day=day) for day in (0, 1)]
        new = run_of(dataset="e2" * 16, day=2)
        with pytest.raises(ComparisonError) as caught:
            gate_case([*old, new], "mine")
        message, newest = str(caught.value), f"{new.name} ({new.run_id[:8]})"
        assert f"Run {newest} is not comparable with the baseline 'mine' (2 runs, the newest mine (" in message
        assert "gpu: NVIDIA H100 80GB HBM3 instead of NVIDIA A10" in message
        assert "dataset: librispeech test-clean (e2e2e2e2) instead of librispeech" in message
        assert caught.value.exit_status == 2
        with pytest.raises(ComparisonError, match=r"'mine' .*: kv_cache_dtype: fp8 instead of auto\. To judge"):
            gate_case([run_of(name="mine"), run_of(FP8, day=1)], "mine")

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

    def test_a_damaged_run_is_not_judged(self) -> None:
        """One of the baseline is left out; a damaged candidate is refused, not replaced by an older run."""
        good, damaged, new = run_of(), run_of(day=1, tags={REPEATS: "?"}), run_of(day=2)
        assert runs_of([good, damaged, new], NAME) == ([new], [good])
        with pytest.raises(ComparisonError, match=r"cannot be compared, because its tag whisperbench\.repeats"):
            gate_case([good, damaged], NAME)
        with pytest.raises(ComparisonError, match=r"it has no tag whisperbench\.accuracy_key"):
            gate_case([without_tag(good, ACCURACY_KEY), new], NAME)


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

    @pytest.mark.parametrize(("runs", "noise"), [(2, 0.01), (3, 0.03), (5, 0.1)])
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
        ("errors", "rate", "margin", "status", "opening"),
        [
            ([1] * 400, 40.0, 0.2, 0, "No regression: large-v3 ("),
            ([0] * 400, 40.0, 0.2, 0, "No regression"),
            ([2 - (n % 20 > 0) for n in range(400)], 40.0, 0.5, 0, "No regression"),
            ([2] * 400, 40.0, 0.2, 1, "REGRESSION of WER: "),
            ([1] * 400, 30.0, 0.2, 1, "REGRESSION of throughput: "),
            ([2] * 400, 30.0, 0.2, 1, "REGRESSION of WER and throughput: "),
            ([1] * 392 + [3] * 8, 40.0, 0.2, 2, "UNDECIDED for WER: "),
        ],
    )
    def test_accuracy_and_speed(self, errors: list[int], rate: float, margin: float, status: int, opening: str) -> None:
        """One error in 20 words is 5 %; a regression of either is status 1, else an undecided one is 2."""
        tables = (read_table(spoken(each, per_speaker=20)) for each in ([1] * 400, errors))
        verdict = verdict_of(self.runs(rate), wer_difference(*tables, margin=margin), margin=margin)
        assert (verdict.status, verdict.sentence.startswith(opening)) == (status, True), verdict.sentence
        assert f"against the baseline '{NAME}' (3 runs, the newest {NAME} (" in verdict.sentence
        assert "WER: " in verdict.sentence
        assert "Throughput: " in verdict.sentence

    def test_loops_are_counted_beside_the_verdict(self) -> None:
        """A set without a loop cannot exclude them."""
        runs = [run_of(day=day, metrics={"repetition_loops": 0.0, "utterances": 1_313.0}) for day in range(2)]
        tables = (read_table(spoken([1] * 80)) for _ in range(2))
        sentence = verdict_of(runs, wer_difference(*tables, margin=0.2)).sentence
        assert "loops: 0 of 1,313 (at most 0.23 % of clips)" in sentence

    def test_a_wer_that_cannot_be_compared_is_an_error(self) -> None:
        """Without transcripts the gate ends with status 2 instead of 0."""
        with pytest.raises(ComparisonError, match=f"that of the baseline '{NAME}' .*: no transcripts") as caught:
            verdict_of(self.runs(), "no transcripts")
        assert caught.value.exit_status == 2

    def test_without_a_wer_the_rate_decides(self) -> None:
        """Random weights have no WER; a missing rate is an error."""
        runs = [run_of(wer=None, rate=rate, day=day) for day, rate in enumerate((40.0, 40.1, 39.9, 40.0))]
        assert verdict_of(runs).status == 0
        with pytest.raises(ComparisonError, match="reqs_per_sec was not measured"):
            verdict_of([run_of(rate=None), run_of(rate=None, day=1)])

    def test_the_newest_runs_of_the_baseline_count(self) -> None:
        """Three, or twice as many as the candidate has, so that one slow candidate run is not outvoted."""
        baseline = [run_of(wer=None, rate=100 + n, day=n) for n in range(19)]
        sentence = verdict_of([*baseline, run_of(wer=None, rate=94.0, day=30)]).sentence
        assert "94.00 reqs/sec instead of 117.00 (" in sentence
        assert "1 against 3 runs" in sentence
