"""What may be ranked together, and why the rest is left out."""

from __future__ import annotations

import dataclasses

from tests.support.stores import run_of, without_tag
from whisperbench.compare.groups import Group, Grouping
from whisperbench.compare.systems import systems
from whisperbench.options import BenchmarkConfig
from whisperbench.results.names import ACCURACY_KEY, FROZEN

LARGE = BenchmarkConfig(model="large-v3")
TURBO = BenchmarkConfig(model="large-v3-turbo")
FP8 = BenchmarkConfig(model="large-v3", kv_cache_dtype="fp8")


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
        assert [len(group.systems) for group in grouping.groups] == [3, 2]

    def test_a_run_without_a_key_is_left_out(self) -> None:
        """Nobody knows what a run without keys may be compared with."""
        grouping = Grouping.of([run_of(LARGE), without_tag(run_of(TURBO), ACCURACY_KEY)], "wer")
        assert "no tag whisperbench.accuracy_key" in grouping.left_out[0].reason

    def test_a_run_that_measured_nothing_is_left_out(self) -> None:
        """NaN and MLflow's infinity are not measurements."""
        broken = run_of(TURBO, wer=float("nan"), rate=1.8e308)
        grouping = Grouping.of([run_of(LARGE), broken], "wer")
        assert grouping.left_out[0].reason == "neither wer nor reqs_per_sec was measured"

    def test_a_frozen_run_is_left_out_of_speed_alone(self) -> None:
        """Its WER counts; its rates, also those of its repeats, are nowhere, and the list says why."""
        frozen = run_of(TURBO, tags={FROZEN: "no progress for 34 s while the clock ran"})
        frozen = dataclasses.replace(frozen, history={"reqs_per_sec": (9.0, 10.0)})
        grouping = Grouping.of([run_of(LARGE), frozen], "reqs_per_sec")
        ((left,), (group,)) = grouping.left_out, grouping.groups
        assert (left.run, left.reason) == (frozen, "left out of speed: no progress for 34 s while the clock ran")
        (system,) = [each for each in group.systems if each.newest is frozen]
        assert (system.wer, system.spread("reqs_per_sec"), system.median("rtfx")) == (2.5, None, None)

    def test_a_frozen_run_without_a_wer(self) -> None:
        """Has nothing to be ranked by."""
        frozen = run_of(TURBO, wer=None, tags={FROZEN: "no progress for 34 s while the clock ran"})
        (left,) = Grouping.of([run_of(LARGE), frozen], "wer").left_out
        assert left.reason == "its speed is no measurement: no progress for 34 s while the clock ran"

    def test_the_reason_names_the_nearest_group(self) -> None:
        """Of two boards the one that differs in fewer fields."""
        near = [run_of(BenchmarkConfig(model=m, limit=20)) for m in ("a", "b")]
        far = [run_of(BenchmarkConfig(model=m)) for m in ("a", "b", "c")]
        lone = run_of(BenchmarkConfig(model="a", limit=20, long_audio="trim"))
        (left,) = Grouping.of([*near, *far, lone], "wer").left_out
        assert left.reason == "nothing to be ranked against: long_audio: trim instead of split"

    def test_the_main_group_has_most_systems(self) -> None:
        """The first board answers for the data that most was measured on."""
        few = [run_of(BenchmarkConfig(model=m, limit=20)) for m in ("a", "b")]
        many = [run_of(BenchmarkConfig(model=m)) for m in ("a", "b", "c")]
        grouping = Grouping.of([*few, *many], "wer")
        assert [group.fields["limit"] for group in grouping.groups] == ["0", "20"]


def test_a_group_names_its_data() -> None:
    """The corpus's last part and the split."""
    config = BenchmarkConfig(corpus="/data/LibriSpeech/", split="dev-clean")
    assert Group({}, systems([run_of(config)])).data == "LibriSpeech dev-clean"
