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
OTHER_SETTINGS = "other settings"
UTTERANCES = 2_620  # of LibriSpeech test-clean


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
    def setting(self) -> str:
        """`vllm fp8 seqs256`; only the engine if the setting is the default or was not published."""
        return " ".join([self.engine, *(labels(OPTIONS, self._params).values() if self.kv_cache_dtype else ())])

    @property
    def _params(self) -> dict[str, str]:
        return {"kv_cache_dtype": self.kv_cache_dtype, "max_num_seqs": self.max_num_seqs}

    def has_gpu_of(self, system: System) -> bool:
        """H100 matches `NVIDIA H100 80GB HBM3`; A10 does not match `NVIDIA A100`."""
        return named(self.gpu, system.newest.gpu)

    def has_model_of(self, system: System) -> bool:
        return not {system.model, system.model_id.rpartition("/")[2]}.isdisjoint({self.model, f"whisper-{self.model}"})

    def has_data_of(self, system: System) -> bool:
        """MLPerf transcribes packed windows of 30 s, the other benchmarks transcribe single utterances."""
        return (system.requested(OPTIONS["pack_seconds"]) == "30") is (self.benchmark == MLPERF)

    def caveats_of(self, system: System) -> list[str]:
        """Reasons why a measured system is not directly comparable, beyond `caveats`."""
        split, utterances = system.param("split"), system.newest.metric("utterances") or 0
        wanted = "dev" if self.benchmark == MLPERF else "test-clean"
        equal = not self.kv_cache_dtype or all(system.requested(OPTIONS[n]) == t for n, t in self._params.items())
        more = {system.requested(OPTIONS[name]) for name in ("padding_stride", "engines_per_gpu")} - {None, "1", "auto"}
        reasons = {
            OTHER_SETTINGS: not equal or bool(more) or system.engines > system.gpu_count,
            f"{system.gpu_count} GPUs together": system.gpu_count > self.gpus,
            "random weights": system.newest.random_weights,
            f"other data: {split or system.newest.data}": split != wanted,
            f"{utterances:,.0f} utterances": split == wanted == "test-clean" and utterances != UTTERANCES,
        }
        return [reason for reason, applies in reasons.items() if applies]


@dataclasses.dataclass(frozen=True, slots=True)
class Counterpart:
    """A published result, the most similar measured system, and the fastest one of its model and GPU type, or None."""

    published: PublishedBenchmark
    system: System | None
    best: System | None = None

    @property
    def ratio(self) -> float | None:
        """Measured / published throughput per GPU on the same GPU type; None if the settings are not equal."""
        equal = self.system and OTHER_SETTINGS not in self.published.caveats_of(self.system)
        return self._ratio_of(self.system) if equal else None

    @property
    def best_ratio(self) -> float | None:
        """The ratio of the fastest setting, which may differ from the published one."""
        return self._ratio_of(self.best)

    def _ratio_of(self, system: System | None) -> float | None:
        """The ratio in reqs/sec or, if not published, in RTFx."""
        p = self.published
        metric, theirs = ("reqs_per_sec", p.reqs_per_sec) if p.reqs_per_sec else ("rtfx", p.rtfx)
        ours = system.median(metric) if system and p.has_gpu_of(system) else None
        return ours / system.gpu_count / (theirs / p.gpus) if system and ours and theirs else None

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
    timed = [system for system in measured if system.median("reqs_per_sec") is not None]
    found = []
    for row in published_benchmarks():
        systems = [system for system in timed if row.has_data_of(system)]
        similarity = {
            s: (row.has_gpu_of(s), -len(row.caveats_of(s)), s.median("reqs_per_sec"))
            for s in systems
            if row.has_model_of(s)
        }
        best = max(similarity, key=similarity.__getitem__, default=None)
        if every or best or any(map(row.has_gpu_of, systems)):
            here = [s for s in similarity if row.has_gpu_of(s)]
            fastest = max(here, key=lambda s: s.median("reqs_per_sec") or 0.0, default=None)
            found.append(Counterpart(row, best, fastest))
    return tuple(found)
