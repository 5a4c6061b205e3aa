"""Groups of comparable runs, and the reasons why runs are left out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.support.reports import FP8, LARGE, TURBO, report_of
from tests.support.stores import run_of, without_tag
from whisperbench.compare.groups import grouped
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.results.names import ACCURACY_KEY, DISTURBED, REPEATS, SIGNATURE, SPEED_KEY
from whisperbench.results.record import RunRecord


def limits(runs: Sequence[RunRecord]) -> list[str]:
    """The limit of the data of each group, the main group first."""
    return [
        group.newest.tags[ACCURACY_KEY].partition("limit=")[2].partition("|")[0] for group in grouped(runs, "wer")[0]
    ]


class TestGroups:
    def test_runs_on_other_data_or_with_another_normaliser_are_never_ranked_together(self) -> None:
        """A run with another accuracy key is listed separately with the fields that differ."""
        others = [run_of(FP8, dataset="e2" * 16, wer=1.0), run_of(FP8, normalizer="whisper-english/9", day=-1)]
        report = report_of(run_of(LARGE), run_of(TURBO), *others)
        assert [len(board.rows) for board in report.boards] == [2]
        assert [board.rows[0].system.newest for board in report.alone] == others
        assert [board.differs for board in report.alone] == [
            "dataset: librispeech test-clean (e2e2e2e2) instead of librispeech test-clean (d1d1d1d1)",
            "normalizer: whisper-english/9 instead of whisper-english/0.1.15",
        ]

    def test_random_weights_are_ranked_separately(self) -> None:
        """Throughput with random weights is not ranked with throughput of real weights."""
        dummies = [run_of(BenchmarkConfig(model=m, load_format="dummy"), wer=None, rate=200.0) for m in ("a", "b")]
        groups, _ = grouped([run_of(LARGE), run_of(TURBO), run_of(FP8), *dummies], "reqs_per_sec")
        assert [len(group.systems) for group in groups] == [3, 2]

    def test_the_main_group_has_several_systems_and_most_reference_words(self) -> None:
        """Neither many runs over eight utterances nor a single run replaces runs over the whole test set."""
        smoke = [run_of(BenchmarkConfig(model=m, limit=8), metrics={"reference_words": 150.0}) for m in ("a", "b", "c")]
        whole = [run_of(BenchmarkConfig(model=m), metrics={"reference_words": 52_576.0}) for m in ("a", "b")]
        lone = [run_of(BenchmarkConfig(limit=n), metrics={"reference_words": n * 20.0}) for n in (50, 9000)]
        assert limits([*smoke, *whole]) == ["all", "8"]
        assert limits([*lone, *smoke]) == ["8", "9000", "50"]
        assert limits(lone) == ["9000", "50"]


class TestLeftOut:
    @pytest.mark.parametrize(
        ("run", "reason"),
        [
            (without_tag(run_of(TURBO), ACCURACY_KEY), "it has no tag whisperbench.accuracy_key"),
            (without_tag(run_of(TURBO), SPEED_KEY), "it has no tag whisperbench.speed_key"),
            (run_of(wer=float("nan"), rate=1.8e308), "neither an error rate nor reqs_per_sec was measured"),
            (run_of(wer=None, tags={DISTURBED: "another benchmark"}), "another benchmark"),
            (run_of(tags={REPEATS: "reqs_per_sec=40,x"}), "its tag whisperbench.repeats is damaged"),
        ],
    )
    def test_a_run_that_cannot_be_ranked(self, run: RunRecord, reason: str) -> None:
        """Without keys, without a measurement (NaN and MLflow's infinity are none), or with damaged repeats."""
        groups, left_out = grouped([run_of(LARGE), run], "wer")
        assert (len(groups[0].systems), left_out) == (1, [(run, reason)])

    def test_the_speed_of_a_disturbed_run_is_left_out(self) -> None:
        """Its WER is ranked, undisturbed repeats of it keep their rates, and the counts agree with the lists."""
        disturbed = run_of(LARGE, rate=5.0, tags={DISTURBED: "another benchmark ran on this host"})
        report = report_of(disturbed, run_of(LARGE, rate=40.0), run_of(TURBO))
        large = next(row.system for row in report.boards[0].rows if row.system.model == "large-v3")
        assert sorted(map(len, large.by_run("reqs_per_sec"))) == [0, 1]
        assert [len(each) for each in large.by_run("wer")] == [1, 1]
        assert report.without_speed == [(disturbed, "another benchmark ran on this host")]
        assert report.counts == "3 runs compared, 1 without their speed, 0 left out"
        headings = [part.cells[0] for part in report.sections if hasattr(part, "cells")]
        assert "Without their speed" in headings
        assert "Left out" not in headings


def test_a_run_names_its_data() -> None:
    """The corpus's last part and the split, without an invented split; the signature takes precedence."""
    config = BenchmarkConfig(corpus="/data/LibriSpeech/", split="dev-clean")
    assert run_of(config).data == "LibriSpeech dev-clean"
    signed = run_of(config, tags={SIGNATURE: "model=m|data=librispeech/dev-clean#1234abcd|n=all"})
    assert signed.data == "librispeech dev-clean"
    whole = run_of(BenchmarkConfig(corpus="demo"), tags={SIGNATURE: "model=m|data=demo/all#1234abcd|n=all"})
    assert (whole.params["split"], whole.data) == ("test-clean", "demo")
