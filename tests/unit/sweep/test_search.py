"""The search with a simulated engine whose best setting is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

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
FOUR = {"max_num_seqs": "64,256", "max_num_batched_tokens": "12000"}
"""A space of four settings."""
Metrics = Mapping[str, float]


@dataclasses.dataclass
class FakeEngine:
    """Deterministic: fastest at 256 sequences, fp8 and 48,000 tokens; fp8 costs accuracy; `broken` settings fail.

    `finished` has the results of earlier searches, which are not measured again.
    """

    broken: frozenset[str] = frozenset()
    error: str = "wer"
    dies_at: int | None = None
    finished: dict[str, Metrics] = dataclasses.field(default_factory=dict)
    measured: list[Settings] = dataclasses.field(default_factory=list)

    def __call__(self, settings: Settings) -> Metrics | None:
        if str(settings) in self.finished:
            return self.finished[str(settings)]
        if self.dies_at is not None and len(self.measured) == self.dies_at:
            raise KeyboardInterrupt
        self.measured.append(settings)
        if settings["max_num_seqs"] in self.broken:
            return None
        fp8 = settings.get("kv_cache_dtype") == "fp8"
        far = math.log2(int(settings["max_num_seqs"]) / 256)
        rate = 100 + 20 * fp8 - 10 * far**2 + int(settings.get("max_num_batched_tokens", "0")) / 2000
        self.finished[str(settings)] = {"reqs_per_sec": rate, self.error: 2.6 if fp8 else 2.3}
        return self.finished[str(settings)]


def wanted(**options: object) -> Search:
    return Search(sweep_of(**{"trials": 30, **SPACE, **options}))


def found(wanted: Search, engine: FakeEngine) -> tuple[Settings, float]:
    best = search(wanted, engine)
    assert best is not None
    assert len({str(settings) for settings in engine.measured}) == len(engine.measured) <= wanted.trials
    return best


def test_thirty_trials_find_the_known_optimum() -> None:
    """Of 128 settings, 30 different ones are measured; the first is that of a run without a search."""
    engine = FakeEngine()
    best = {"kv_cache_dtype": "fp8", "max_num_seqs": "256", "max_num_batched_tokens": "48000"}
    assert found(wanted(), engine) == (best, 144)
    assert len(engine.measured) == 30
    assert engine.measured[0] == {"kv_cache_dtype": "auto", "max_num_seqs": "128", "max_num_batched_tokens": "12000"}


def test_the_first_setting_lies_on_the_steps_of_a_range() -> None:
    """Otherwise Optuna replaces it; fractions have steps of 0.01."""
    engine = FakeEngine()
    found(wanted(gpu_memory_utilization="0.805..0.945", trials=2), engine)
    assert engine.measured[0]["gpu_memory_utilization"] == "0.915"


@pytest.mark.parametrize("error", ["wer", "cer"])
def test_a_bound_on_wer_is_kept(error: str) -> None:
    """fp8 is faster but exceeds max_wer, so the best setting without fp8 is returned; the CER replaces the WER."""
    best, _ = found(wanted(max_wer=2.5), FakeEngine(error=error))
    assert best["kv_cache_dtype"] == "auto"
    assert best["max_num_seqs"] in ("224", "256", "288")


def test_no_setting_within_the_bound_returns_none() -> None:
    """The setting with the lowest WER is not returned instead."""
    assert search(wanted(max_wer=1.0, trials=5), FakeEngine()) is None


def test_the_cer_is_the_objective_without_a_wer() -> None:
    """In languages whose unit is the character."""
    best, value = found(wanted(objective="wer", **FOUR), FakeEngine(error="cer"))
    assert (best["kv_cache_dtype"], value) == ("auto", 2.3)


def test_a_setting_that_fails_is_not_tried_again() -> None:
    """The search continues with others."""
    engine = FakeEngine(broken=frozenset({"256", "128"}))
    assert found(wanted(), engine)[0]["max_num_seqs"] in ("224", "288")
    assert len(engine.measured) > 20


def test_a_missing_metric_ends_the_search() -> None:
    """A corpus without transcripts has no WER, so the search ends after one run."""
    engine = FakeEngine(error="none")
    with pytest.raises(ConfigError, match="no wer, which the search needs"):
        search(wanted(max_wer=2.5), engine)
    assert len(engine.measured) == 1


def test_it_ends_when_every_setting_is_known() -> None:
    """Two lists of two values are four settings, even if trials is larger."""
    engine = FakeEngine()
    assert found(wanted(**FOUR), engine)[0] == {"kv_cache_dtype": "fp8", "max_num_seqs": "256"}
    assert len(engine.measured) == wanted(**FOUR).max_settings == 4


def test_an_interrupted_search_continues() -> None:
    """It proposes the finished settings again, then the interrupted one, and ends as if it had not been interrupted."""
    whole, first = FakeEngine(), FakeEngine(dies_at=17)
    best = search(wanted(), whole)
    with pytest.raises(KeyboardInterrupt):
        search(wanted(), first)
    second = FakeEngine(finished=first.finished)
    assert search(wanted(), second) == best
    assert first.measured + second.measured == whole.measured


def test_a_failed_setting_is_measured_again_at_the_next_start() -> None:
    """The failure may have been temporary; measured settings are not measured again."""
    first = FakeEngine(broken=frozenset({"64"}))
    found(wanted(**FOUR), first)
    second = FakeEngine(finished=first.finished)
    found(wanted(**FOUR), second)
    assert [settings["max_num_seqs"] for settings in second.measured] == ["64", "64"]


def test_the_first_setting_is_allowed() -> None:
    """The first values of two lists may contradict each other: an fp8 cache needs bfloat16."""
    options = {"max_num_seqs": "64", "max_num_batched_tokens": "auto"}
    found = wanted(kv_cache_dtype="fp8,auto", dtype="float16,bfloat16", **options)
    assert found.first == {"kv_cache_dtype": "auto", "dtype": "float16"}
    with pytest.raises(ConfigError, match="needs dtype=bfloat16"):
        _ = wanted(kv_cache_dtype="fp8", dtype="float16,float32", **options).first


def test_a_search_of_one_setting_is_refused() -> None:
    """At least one option needs several values."""
    with pytest.raises(ConfigError, match="Nothing can be searched"):
        Search(sweep_of(objective="reqs_per_sec"))
