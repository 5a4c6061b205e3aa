"""Groups of comparable runs, and the reasons why runs are left out."""

from __future__ import annotations

from tests.support.stores import run_of, without_tag
from whisperbench.compare.groups import Grouping, differences
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.results.names import ACCURACY_KEY, DISTURBED, SIGNATURE

LARGE = BenchmarkConfig(model="large-v3")
TURBO = BenchmarkConfig(model="large-v3-turbo")
FP8 = BenchmarkConfig(model="large-v3", kv_cache_dtype="fp8")


class TestGrouping:
    def test_runs_on_other_data_are_never_ranked_together(self) -> None:
        """A group has one accuracy key; a single run with another key is listed separately."""
        other = run_of(FP8, dataset="e2" * 16, wer=1.0)
        grouping = Grouping.of([run_of(LARGE), run_of(TURBO), other], "wer")
        assert len(grouping.groups) == 1
        assert [system.newest for group in grouping.alone for system in group.systems] == [other]
        (differs,) = differences(grouping.groups[0], grouping.alone[0])
        assert differs.startswith("dataset: librispeech test-clean (e2e2e2e2) instead of librispeech")

    def test_another_normaliser_is_another_group(self) -> None:
        """Runs with different normalisers are not ranked together."""
        grouping = Grouping.of([run_of(LARGE), run_of(TURBO), run_of(FP8, normalizer="whisper-english/9")], "wer")
        found = differences(grouping.groups[0], grouping.alone[0])
        assert found == ("normalizer: whisper-english/9 instead of whisper-english/0.1.15",)

    def test_random_weights_are_ranked_separately(self) -> None:
        """Throughput with random weights is not ranked with throughput of real weights."""
        dummies = [
            run_of(BenchmarkConfig(model=m, load_format="dummy"), wer=None, normalizer="none", rate=200.0)
            for m in ("large-v3", "base")
        ]
        grouping = Grouping.of([run_of(LARGE), run_of(TURBO), run_of(FP8), *dummies], "reqs_per_sec")
        assert [len(group.systems) for group in grouping.groups] == [3, 2]

    def test_a_run_without_a_key_is_left_out(self) -> None:
        """Without keys it cannot be compared with other runs."""
        grouping = Grouping.of([run_of(LARGE), without_tag(run_of(TURBO), ACCURACY_KEY)], "wer")
        assert "no tag whisperbench.accuracy_key" in grouping.left_out[0].reason

    def test_a_run_that_measured_nothing_is_left_out(self) -> None:
        """NaN and MLflow's infinity are not measurements."""
        broken = run_of(TURBO, wer=float("nan"), rate=1.8e308)
        grouping = Grouping.of([run_of(LARGE), broken], "wer")
        assert grouping.left_out[0].reason == "neither an error rate nor reqs_per_sec was measured"

    def test_the_speed_of_a_disturbed_run_is_left_out(self) -> None:
        """With the reason; its WER is ranked, and undisturbed repeats of it keep their rates."""
        disturbed = run_of(LARGE, rate=5.0, tags={DISTURBED: "another benchmark ran on this host"})
        grouping = Grouping.of([disturbed, run_of(LARGE, rate=40.0), run_of(TURBO)], "wer")
        large = next(s for group in grouping.groups for s in group.systems if s.model == "large-v3")
        assert sorted(map(len, large.by_run("reqs_per_sec"))) == [0, 1]
        assert [len(each) for each in large.by_run("wer")] == [1, 1]
        (left,) = grouping.left_out
        assert (left.run, left.reason) == (disturbed, "only its speed is left out: another benchmark ran on this host")

    def test_the_main_group_has_most_reference_words(self) -> None:
        """Many runs over eight utterances do not replace a run over the whole test set."""
        smoke = [run_of(BenchmarkConfig(model=m, limit=8), metrics={"reference_words": 150.0}) for m in ("a", "b", "c")]
        whole = [run_of(BenchmarkConfig(model=m), metrics={"reference_words": 52_576.0}) for m in ("a", "b")]
        grouping = Grouping.of([*smoke, *whole], "wer")
        assert [group.fields["limit"] for group in grouping.groups] == ["all", "8"]

    def test_a_single_run_is_not_the_main_leaderboard(self) -> None:
        """It is the main one only if no group has several runs; then the most reference words decide."""
        pair = [run_of(BenchmarkConfig(model=m, limit=8), metrics={"reference_words": 150.0}) for m in ("a", "b")]
        lone = [run_of(BenchmarkConfig(limit=n), metrics={"reference_words": n * 20.0}) for n in (50, 900)]
        grouping = Grouping.of([*lone, *pair], "wer")
        assert [group.fields["limit"] for group in (*grouping.groups, *grouping.alone)] == ["8", "900", "50"]
        assert Grouping.of(lone, "wer").groups[0].fields["limit"] == "900"


def test_a_run_names_its_data() -> None:
    """The corpus's last part and the split; the signature of a run, if it has one, takes precedence."""
    config = BenchmarkConfig(corpus="/data/LibriSpeech/", split="dev-clean")
    assert run_of(config).data == "LibriSpeech dev-clean"
    signed = run_of(config, tags={SIGNATURE: "model=m|data=librispeech/dev-clean#1234abcd|n=all"})
    assert signed.data == "librispeech dev-clean"


def test_no_split_is_invented() -> None:
    """A corpus without splits has the option's default among its params, and none in its name."""
    run = run_of(BenchmarkConfig(corpus="demo"), tags={SIGNATURE: "model=m|data=demo/all#1234abcd|n=all"})
    assert (run.params["split"], run.data) == ("test-clean", "demo")
