"""The search with a simulated engine whose best setting is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.options import sweep_of
from whisperbench.errors import ConfigError
from whisperbench.sweep.search import Search, Settings, search

SPACE = {
    "max_num_seqs": "32..512:32",
    "kv_cache_dtype": "auto,fp8",
    "max_num_batched_tokens": "12000..48000:12000",
    "objective": "reqs_per_sec",
}
BEST = {"max_num_seqs": "256", "kv_cache_dtype": "fp8", "max_num_batched_tokens": "48000"}


@dataclasses.dataclass
class FakeEngine:
    """Deterministic: fastest at 256 sequences, fp8 and 48,000 tokens; fp8 costs accuracy; `broken` settings fail."""

    broken: frozenset[str] = frozenset()
    without: str = ""
    error: str = "wer"
    dies_at: int | None = None
    measured: list[Settings] = dataclasses.field(default_factory=list)

    def __call__(self, settings: Settings) -> Mapping[str, float] | None:
        if self.dies_at is not None and len(self.measured) == self.dies_at:
            raise KeyboardInterrupt
        self.measured.append(dict(settings))
        if settings["max_num_seqs"] in self.broken:
            return None
        fp8 = settings.get("kv_cache_dtype") == "fp8"
        far = math.log2(int(settings["max_num_seqs"]) / 256)
        rate = 100 + 20 * fp8 - 10 * far**2 + int(settings.get("max_num_batched_tokens", "0")) / 2000
        found = {"reqs_per_sec": rate, self.error: 2.6 if fp8 else 2.3}
        return {name: value for name, value in found.items() if name != self.without}


def wanted(**options: object) -> Search:
    return Search.of(sweep_of(**{"trials": 30, **SPACE, **options}))


class TestFinding:
    def test_thirty_trials_find_the_known_optimum(self, tmp_path: Path) -> None:
        """Of 128 settings, 30 different ones are measured, the best among them."""
        engine = FakeEngine()
        best = search(wanted(), engine, storage=tmp_path / "s.db", name="s")
        assert best is not None
        assert best[0] == BEST
        assert best[1] == 144
        assert len(engine.measured) == len({tuple(s.items()) for s in engine.measured}) == 30

    def test_the_first_setting_is_the_one_without_a_search(self, tmp_path: Path) -> None:
        """The best setting is therefore never worse than the defaults."""
        engine = FakeEngine()
        search(wanted(trials=1), engine, storage=tmp_path / "s.db", name="s")
        assert engine.measured == [{"kv_cache_dtype": "auto", "max_num_seqs": "128", "max_num_batched_tokens": "12000"}]

    @pytest.mark.parametrize("error", ["wer", "cer"])
    def test_a_bound_on_wer_is_kept(self, tmp_path: Path, error: str) -> None:
        """fp8 is faster but exceeds max_wer, so the best setting without fp8 is returned; the CER replaces the WER."""
        best = search(wanted(max_wer=2.5), FakeEngine(error=error), storage=tmp_path / "s.db", name="s")
        assert best is not None
        assert best[0]["kv_cache_dtype"] == "auto"
        assert best[0]["max_num_seqs"] in ("224", "256", "288")

    def test_the_cer_is_the_objective_without_a_wer(self, tmp_path: Path) -> None:
        """In languages whose unit is the character."""
        options = {"objective": "wer", "max_num_seqs": "256,288", "max_num_batched_tokens": "12000"}
        best = search(wanted(**options), FakeEngine(error="cer"), storage=tmp_path / "s.db", name="s")
        assert best is not None
        assert (best[0]["kv_cache_dtype"], best[1]) == ("auto", 2.3)

    def test_no_setting_within_the_bound_returns_none(self, tmp_path: Path) -> None:
        """The setting with the lowest WER is not returned instead."""
        assert search(wanted(max_wer=1.0, trials=5), FakeEngine(), storage=tmp_path / "s.db", name="s") is None

    def test_a_setting_that_fails_is_not_tried_again(self, tmp_path: Path) -> None:
        """The search continues until it only proposes known settings."""
        engine = FakeEngine(broken=frozenset({"256", "128"}))
        best = search(wanted(), engine, storage=tmp_path / "s.db", name="s")
        assert best is not None
        assert best[0]["max_num_seqs"] in ("224", "288")
        assert 20 < len(engine.measured) == len({tuple(s.items()) for s in engine.measured}) <= 30

    def test_a_missing_metric_ends_the_search(self, tmp_path: Path) -> None:
        """A corpus without transcripts has no WER, so the search ends after one run."""
        engine = FakeEngine(without="wer")
        with pytest.raises(ConfigError, match="no wer, which the search needs: the corpus needs transcripts"):
            search(wanted(max_wer=2.5), engine, storage=tmp_path / "s.db", name="s")
        assert len(engine.measured) == 1

    def test_it_ends_when_every_setting_is_known(self, tmp_path: Path) -> None:
        """Two lists of two values are four settings, even if trials is larger."""
        engine = FakeEngine()
        options = {"max_num_seqs": "64,256", "max_num_batched_tokens": "12000"}
        best = search(wanted(**options), engine, storage=tmp_path / "s.db", name="s")
        assert len(engine.measured) == wanted(**options).max_settings == 4
        assert best is not None
        assert best[0] == {"kv_cache_dtype": "fp8", "max_num_seqs": "256"}


class TestResume:
    def test_an_interrupted_setting_is_measured_first(self, tmp_path: Path) -> None:
        """After a kill in the sixth setting, the study continues with it and ends at the same total."""
        first, second = FakeEngine(dies_at=5), FakeEngine()
        with pytest.raises(KeyboardInterrupt):
            search(wanted(trials=12), first, storage=tmp_path / "s.db", name="s")
        search(wanted(trials=12), second, storage=tmp_path / "s.db", name="s")
        together = [tuple(s.items()) for s in first.measured + second.measured]
        assert len(together) == len(set(together)) == 12

    def test_a_failed_setting_is_measured_again_at_the_next_start(self, tmp_path: Path) -> None:
        """The failure may have been temporary; measured settings are not measured again."""
        options = {"max_num_seqs": "64,256", "max_num_batched_tokens": "12000"}
        first, second, third = FakeEngine(broken=frozenset({"64"})), FakeEngine(), FakeEngine()
        for engine in (first, second, third):
            search(wanted(**options), engine, storage=tmp_path / "s.db", name="s")
        assert len(first.measured) == 4
        assert sorted(s["max_num_seqs"] for s in second.measured) == ["64", "64"]
        assert third.measured == []

    def test_a_finished_study_measures_nothing_more(self, tmp_path: Path) -> None:
        """It returns its best setting again."""
        once = search(wanted(trials=6), FakeEngine(), storage=tmp_path / "s.db", name="s")
        again = FakeEngine()
        assert search(wanted(trials=6), again, storage=tmp_path / "s.db", name="s") == once
        assert again.measured == []


def test_the_first_setting_is_allowed() -> None:
    """The first values of two lists may contradict each other: an fp8 cache needs bfloat16."""
    found = wanted(
        kv_cache_dtype="fp8,auto", dtype="float16,bfloat16", max_num_seqs="64", max_num_batched_tokens="auto"
    )
    assert found.first == {"kv_cache_dtype": "auto", "dtype": "float16"}
    never = wanted(kv_cache_dtype="fp8", dtype="float16,float32", max_num_seqs="64", max_num_batched_tokens="auto")
    with pytest.raises(ConfigError, match="needs dtype=bfloat16"):
        _ = never.digest


def test_a_search_of_one_setting_is_refused() -> None:
    """At least one option needs several values."""
    with pytest.raises(ConfigError, match="Nothing can be searched"):
        Search.of(sweep_of(objective="reqs_per_sec"))
