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
    "trials": 30,
}
FOUR = {"max_num_seqs": "64,256", "max_num_batched_tokens": "12000"}
"""A space of four settings."""
Metrics = Mapping[str, float]


@dataclasses.dataclass
class FakeEngine:
    """Deterministic: fastest at 256 sequences, fp8 and 48,000 tokens; fp8 costs accuracy; `broken` settings fail.

    `finished` has the results of earlier searches, which are not measured again.
    """

    broken: str = ""
    error: str = "wer"
    dies_at: int | None = None
    finished: dict[str, Metrics] = dataclasses.field(default_factory=dict)
    measured: list[Settings] = dataclasses.field(default_factory=list)

    def __call__(self, settings: Settings) -> Metrics | None:
        if str(settings) in self.finished:
            return self.finished[str(settings)]
        if len(self.measured) == self.dies_at:
            raise KeyboardInterrupt
        assert settings not in self.measured
        self.measured.append(settings)
        if settings["max_num_seqs"] == self.broken:
            return None
        fp8 = settings.get("kv_cache_dtype") == "fp8"
        far = math.log2(int(settings["max_num_seqs"]) / 256)
        rate = 100 + 20 * fp8 - 10 * far**2 + int(settings.get("max_num_batched_tokens", "0")) / 2000
        self.finished[str(settings)] = {"reqs_per_sec": rate, self.error: 2.6 if fp8 else 2.3}
        return self.finished[str(settings)]


def wanted(**options: object) -> Search:
    return Search(sweep_of(**{**SPACE, **options}))


def test_thirty_trials_find_the_known_optimum() -> None:
    """Of 128 settings, 30 different ones are measured; the first is that of a run without a search."""
    engine = FakeEngine()
    best = {"kv_cache_dtype": "fp8", "max_num_seqs": "256", "max_num_batched_tokens": "48000"}
    assert search(wanted(), engine) == (best, 144)
    assert len(engine.measured) == 30
    assert engine.measured[0] == {"kv_cache_dtype": "auto", "max_num_seqs": "128", "max_num_batched_tokens": "12000"}


def test_the_first_setting_lies_on_the_steps_of_a_range() -> None:
    """Otherwise Optuna replaces it; fractions have steps of 0.01."""
    engine = FakeEngine()
    search(wanted(gpu_memory_utilization="0.805..0.945", trials=2), engine)
    assert engine.measured[0]["gpu_memory_utilization"] == "0.915"


@pytest.mark.parametrize(
    ("options", "error", "best"),
    [
        ({"max_wer": 2.5}, "wer", "auto"),
        ({"max_wer": 2.5}, "cer", "auto"),
        ({"max_wer": 9.0}, "wer", "fp8"),
        ({"max_wer": 1.0, "trials": 5}, "wer", None),
        ({"objective": "wer"}, "cer", "auto"),
    ],
)
def test_accuracy_as_bound_and_as_objective(options: dict[str, object], error: str, best: str | None) -> None:
    """fp8 is faster and less accurate; the CER replaces the WER; without a setting within the bound there is none."""
    found = search(wanted(**options), FakeEngine(error=error))
    assert (found and found[0]["kv_cache_dtype"]) == best


def test_a_missing_metric_ends_the_search() -> None:
    """A corpus without transcripts has no WER, so the search ends after one run."""
    engine = FakeEngine(error="none")
    with pytest.raises(ConfigError, match="no wer, which the search needs"):
        search(wanted(max_wer=2.5), engine)
    assert len(engine.measured) == 1


def test_a_failed_setting_is_measured_again_at_the_next_start() -> None:
    """And not in the same search, which ends when every setting is known, even if trials is larger."""
    first, second = FakeEngine(broken="64"), FakeEngine()
    best = search(wanted(**FOUR), first)
    assert best == ({"kv_cache_dtype": "fp8", "max_num_seqs": "256"}, 120)
    assert len(first.measured) == wanted(**FOUR).max_settings == 4
    second.finished = first.finished
    assert search(wanted(**FOUR), second) == best
    assert [settings["max_num_seqs"] for settings in second.measured] == ["64", "64"]


def test_an_interrupted_search_continues() -> None:
    """It proposes the finished settings again, then the interrupted one, and ends as if it had not been interrupted."""
    whole, first = FakeEngine(), FakeEngine(dies_at=17)
    best = search(wanted(), whole)
    with pytest.raises(KeyboardInterrupt):
        search(wanted(), first)
    second = FakeEngine(finished=first.finished)
    assert search(wanted(), second) == best
    assert first.measured + second.measured == whole.measured


def test_the_first_setting_is_allowed() -> None:
    """The first values of two lists may contradict each other: an fp8 cache needs bfloat16."""
    options = {"max_num_seqs": "64", "max_num_batched_tokens": "auto"}
    found = wanted(kv_cache_dtype="fp8,auto", dtype="float16,bfloat16", **options)
    assert found.first == {"kv_cache_dtype": "auto", "dtype": "float16"}
    with pytest.raises(ConfigError, match="needs dtype=bfloat16"):
        _ = wanted(kv_cache_dtype="fp8", dtype="float16,float32", **options).first
    with pytest.raises(ConfigError, match="Nothing can be searched"):
        Search(sweep_of(objective="reqs_per_sec"))
