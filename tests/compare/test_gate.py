"""Which run is judged against which, and what is worse."""

from __future__ import annotations

import pytest

from tests.support.stores import run_of, spoken
from whisperbench.compare.gate import contest, judge
from whisperbench.compare.paired_tests import paired_test
from whisperbench.errors import ComparisonError
from whisperbench.options import BenchmarkConfig
from whisperbench.results.transcripts import read_table

A10 = "NVIDIA A10"
LARGE = BenchmarkConfig(model="large-v3")
TURBO = BenchmarkConfig(model="large-v3-turbo")
FP8 = BenchmarkConfig(model="large-v3", kv_cache_dtype="fp8")


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
