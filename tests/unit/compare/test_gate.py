"""The runs that the gate compares, and the conditions of a regression."""

from __future__ import annotations

import pytest

from tests.support.stores import run_of, spoken
from whisperbench.compare.gate import Verdict, gate_case, judge
from whisperbench.compare.paired_tests import paired_test
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.errors import ComparisonError
from whisperbench.results.record import RunRecord
from whisperbench.results.transcripts import read_table

A10 = "NVIDIA A10"
LARGE = BenchmarkConfig(model="large-v3")
TURBO = BenchmarkConfig(model="large-v3-turbo")
FP8 = BenchmarkConfig(model="large-v3", kv_cache_dtype="fp8")


def speed_verdict(baseline: list[float], candidate: float, *others: RunRecord) -> Verdict:
    """The verdict on the newest run against runs of the same configuration, beside others; no WER."""
    runs = [run_of(rate=rate, wer=None) for rate in baseline]
    newest = run_of(rate=candidate, wer=None, day=1)
    return judge(gate_case([*runs, newest, *others], "large-v3-auto-128", newest.run_id), None, 5.0)


class TestGate:
    def test_the_newest_run_is_judged_against_the_named_ones(self) -> None:
        """The baseline of a run name is all runs of that name except the candidate."""
        old, older, new = run_of(day=1), run_of(day=0), run_of(day=2)
        found = gate_case([old, new, older], "large-v3-auto-128", None)
        assert (found.candidate, found.baseline.runs) == (new, (old, older))

    def test_a_digest_names_a_configuration_too(self) -> None:
        """The first 8 digits of a config digest are sufficient."""
        old, new = run_of(FP8, day=0), run_of(LARGE, day=1)
        assert gate_case([old, new], FP8.digest[:8], None).baseline.newest is old

    def test_another_gpu_may_not_be_compared(self) -> None:
        """The error names the field and both values, and its status is 2."""
        old, new = run_of(gpu=A10), run_of(TURBO, day=1)
        with pytest.raises(ComparisonError, match="gpu: NVIDIA H100 80GB HBM3 instead of NVIDIA A10") as caught:
            gate_case([old, new], old.run_id, None)
        assert caught.value.exit_status == 2

    @pytest.mark.parametrize("baseline", ["unknown", "0" * 32])
    def test_an_unknown_baseline_is_an_error(self, baseline: str) -> None:
        """The message lists the names of the runs found."""
        with pytest.raises(ComparisonError, match="large-v3-auto-128"):
            gate_case([run_of()], baseline, None)

    def test_a_baseline_that_is_alone_is_an_error(self) -> None:
        """A single run cannot be both candidate and baseline."""
        only = run_of()
        with pytest.raises(ComparisonError, match="No run was found to compare"):
            gate_case([only], only.run_id, None)
        with pytest.raises(ComparisonError, match="the candidate itself"):
            gate_case([only], only.name, None)

    @pytest.mark.parametrize(
        ("rate", "regression", "rule"),
        [
            (39.6, False, "within the allowed -5 %"),
            (37.6, False, "below the allowed -5 %, but the interval reaches above it, so it may be noise"),
            (35.0, True, "all of it below the allowed -5 %"),
        ],
    )
    def test_slower_is_beyond_the_noise_and_the_allowance(self, rate: float, regression: bool, rule: str) -> None:
        """The baseline has five runs from 39.6 to 40.4; the sentence names the rule that decided."""
        change = 100 * (rate / 40 - 1)
        verdict = speed_verdict([39.6, 39.8, 40.0, 40.2, 40.4], rate)
        assert verdict.regression is regression
        assert f"{rate:.2f} reqs/sec instead of 40.00 ({change:+.1f} %, 95 % interval " in verdict.sentence
        assert f" %: {rule})." in verdict.sentence

    def test_one_slow_baseline_run_hides_no_regression(self) -> None:
        """19 runs at about 100 and one at 40: a candidate at 45 is a regression."""
        usual = [100 + 0.2 * (n % 7) for n in range(19)]
        assert speed_verdict([*usual, 40.0], 45.0).regression
        assert not speed_verdict([*usual, 40.0], 99.0).regression

    def test_the_noise_is_estimated_from_other_configurations_too(self) -> None:
        """With one run each, the noise comes from repeats of other settings on that GPU."""
        others = [run_of(c, rate=r, wer=None) for c in (TURBO, FP8) for r in (59.8, 60.0, 60.2)]
        assert speed_verdict([40.0], 30.0, *others).regression
        assert not speed_verdict([40.0], 39.0, *others).regression
        elsewhere = [run_of(TURBO, rate=r, wer=None, gpu=A10) for r in (59.8, 60.0, 60.2)]
        with pytest.raises(ComparisonError, match=r"-25.0 %, the allowed -5 %\), but no run was repeated on that GPU"):
            speed_verdict([40.0], 30.0, *elsewhere)

    def test_a_single_baseline_run_has_its_configurations_noise(self) -> None:
        """If the baseline is a run id, the noise comes from all runs of its configuration."""
        one, *siblings = (run_of(rate=r, wer=None, name=f"run {r}") for r in (40.0, 40.1, 39.9))
        candidate = run_of(rate=30.0, wer=None, day=1)
        assert judge(gate_case([one, *siblings, candidate], one.run_id, None), None, 5.0).regression

    def test_within_the_allowance_no_noise_is_needed(self) -> None:
        """If no run was repeated and the change is allowed, the sentence states that the noise is unknown."""
        verdict = speed_verdict([40.0], 39.0)
        assert not verdict.regression
        assert "-2.5 %: within the allowed -5 %, its noise is unknown" in verdict.sentence

    @pytest.mark.parametrize(("errors", "regression"), [([1] * 79 + [2], False), ([2] * 80, True), ([0] * 80, False)])
    def test_less_accurate_is_significantly_so(self, errors: list[int], regression: bool) -> None:
        """One error in 1,600 words is not significant, one per utterance is; fewer errors are no regression."""
        found = gate_case([run_of(), run_of(day=1)], "large-v3-auto-128", None)
        test = paired_test(read_table(spoken(errors)), read_table(spoken([1] * 80)), 32)
        verdict = judge(found, test, 5.0)
        assert verdict.regression is regression
        assert (": significant)" if errors[0] != 1 else ": not significant)") in verdict.sentence

    def test_a_wer_that_cannot_be_tested_is_an_error(self) -> None:
        """Without transcripts the gate ends with status 2 instead of 0."""
        found = gate_case([run_of(), run_of(day=1)], "large-v3-auto-128", None)
        with pytest.raises(ComparisonError, match="no transcripts"):
            judge(found, "no transcripts", 5.0)
