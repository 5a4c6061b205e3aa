"""Published benchmark results, which are shown beside the measured results and are not ranked."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from whisperbench.compare.select import named
from whisperbench.compare.systems import System
from whisperbench.config.benchmark import OPTIONS
from whisperbench.config.option import labels

PUBLISHED = Path(__file__).parents[1] / "data" / "published.csv"
MLPERF = "MLPerf"
UTTERANCES = 2_620  # of LibriSpeech test-clean
NOT_SETTINGS = ("model", "model_revision", "dtype", "engine", "gpus")
"""Options that may differ between equal settings; the number of GPUs has a caveat of its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class PublishedBenchmark:
    """A published result; None or an empty string = not published.

    Rates are the total of `gpus` GPUs, the WER is in percent.  `gpu` is a family such as H100.  `caveats` describes the
    timed region and the data.
    """

    benchmark: str
    gpu: str
    gpus: int
    model: str
    engine: str
    kv_cache_dtype: str
    max_num_seqs: str
    wer: float
    reqs_per_sec: float | None
    rtfx: float | None
    source: str
    url: str
    date: str
    caveats: str

    @property
    def _options(self) -> dict[str, str]:
        return {"kv_cache_dtype": self.kv_cache_dtype, "max_num_seqs": self.max_num_seqs}

    @property
    def setting(self) -> str:
        """`vllm fp8 seqs256`; only the engine if the setting is the default or was not published."""
        return " ".join([self.engine, *(labels(OPTIONS, self._options).values() if self.kv_cache_dtype else ())])

    def has_gpu_of(self, system: System) -> bool:
        """H100 matches `NVIDIA H100 80GB HBM3`; A10 does not match `NVIDIA A100`."""
        return named(self.gpu, system.newest.gpu)

    def has_model_of(self, system: System) -> bool:
        return not {system.model, system.model_id.rpartition("/")[2]}.isdisjoint({self.model, f"whisper-{self.model}"})

    def has_data_of(self, system: System) -> bool:
        """MLPerf transcribes packed windows of 30 s, the other benchmarks transcribe single utterances."""
        return (system.requested(OPTIONS["pack_seconds"]) == "30") is (self.benchmark == MLPERF)

    def has_settings_of(self, system: System) -> bool:
        """Whether the settings are equal; options that were not published have their defaults, or no known value."""
        for name, each in OPTIONS.items():
            requested = system.requested(each)
            if name in self._options:
                equal = requested == self._options[name] or not self.kv_cache_dtype
            else:
                equal = requested in (None, each.default_text, "auto") or name in NOT_SETTINGS
            if each.identity and not each.in_keys and not equal:
                return False
        return system.engines <= system.gpu_count

    def caveats_of(self, system: System) -> list[str]:
        """Reasons why a measured system is not directly comparable, beyond `caveats`."""
        split, utterances = system.param("split"), system.newest.metric("utterances") or 0
        wanted = "dev" if self.benchmark == MLPERF else "test-clean"
        reasons = {
            "other settings": not self.has_settings_of(system),
            f"{system.gpu_count} GPUs together": system.gpu_count > self.gpus,
            "random weights": system.newest.random_weights,
            f"other data: {split or system.newest.data}": split != wanted,
            f"{utterances:,.0f} utterances": split == wanted == "test-clean" and utterances != UTTERANCES,
        }
        return [reason for reason, applies in reasons.items() if applies]

    def ratio_of(self, system: System | None) -> float | None:
        """Measured / published reqs/sec per GPU, or RTFx if reqs/sec was not published; None on another GPU type."""
        if system is None or not self.has_gpu_of(system):
            return None
        metric, published = ("reqs_per_sec", self.reqs_per_sec) if self.reqs_per_sec else ("rtfx", self.rtfx)
        measured = system.median(metric)
        return measured / system.gpu_count / (published / self.gpus) if measured and published else None


@dataclasses.dataclass(frozen=True, slots=True)
class Counterpart:
    """A published result, the most similar measured system, and the fastest one of its model and GPU type, or None."""

    published: PublishedBenchmark
    system: System | None
    best: System | None

    @property
    def ratio(self) -> float | None:
        """The ratio of the most similar system; None if its settings are not equal."""
        equal = self.system and self.published.has_settings_of(self.system)
        return self.published.ratio_of(self.system) if equal else None

    @property
    def caveats(self) -> str:
        return ", ".join(self.published.caveats_of(self.system)) if self.system else ""


def published_benchmarks() -> list[PublishedBenchmark]:
    convert: dict[str, Any] = {"gpus": int, "wer": float}
    convert |= dict.fromkeys(("reqs_per_sec", "rtfx"), lambda text: float(text) if text else None)
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [PublishedBenchmark(**{name: convert.get(name, str)(row[name]) for name in row}) for row in rows]


def counterparts(measured: Iterable[System], *, every: bool = False) -> tuple[Counterpart, ...]:
    """Published results whose model or GPU was measured on the same kind of data (with `every`, all results).

    The counterpart has the same model.  A system on the same GPU is preferred, then one with fewer caveats, then a
    faster one.
    """
    rates = {system: rate for system in measured if (rate := system.median("reqs_per_sec")) is not None}
    fastest_first = sorted(rates, key=rates.__getitem__, reverse=True)
    found = []
    for row in published_benchmarks():
        same_data = [system for system in fastest_first if row.has_data_of(system)]
        same_model = [system for system in same_data if row.has_model_of(system)]
        here = [system for system in same_model if row.has_gpu_of(system)]
        closest = min(here or same_model, key=lambda system: len(row.caveats_of(system)), default=None)
        if every or closest or any(map(row.has_gpu_of, same_data)):
            found.append(Counterpart(row, closest, here[0] if here else None))
    return tuple(found)
