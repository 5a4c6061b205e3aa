"""Published results, to be shown beside our own and never ranked among them."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from whisperbench.compare.systems import System

RESULTS = Path(__file__).parents[1] / "data" / "published_results.csv"
SOURCE = "the README of the public script this project follows (LibriSpeech test-clean, 2,620 utterances)"
UTTERANCES = 2_620


@dataclasses.dataclass(frozen=True, slots=True)
class PublishedResult:
    """One published row; `gpu` is a family such as H100, `wer` is in percent."""

    gpu: str
    model: str
    kv_cache_dtype: str
    max_num_seqs: int
    wer: float
    reqs_per_sec: float

    @property
    def settings(self) -> tuple[str, str]:
        """Model, and cache type and sequences: `("large-v3", "fp8/256")`."""
        return self.model, f"{self.kv_cache_dtype}/{self.max_num_seqs}"

    @property
    def label(self) -> str:
        return " ".join(self.settings)

    def has_gpu_and_model_of(self, system: System) -> bool:
        """Same model, and one GPU of the same family: H100 is `NVIDIA H100 80GB HBM3`, A10 is not `NVIDIA A100`."""
        return named(self.gpu, system.newest.gpu) and self.has_model_of(system)

    def has_model_of(self, system: System) -> bool:
        """Same model on one GPU, whichever."""
        names = {system.model, system.model_id.rpartition("/")[2]}
        single = system.param("gpu_count") in (None, "1")
        return single and not names.isdisjoint({self.model, f"whisper-{self.model}"})

    def has_settings_of(self, system: System) -> bool:
        """On vLLM, with the same cache and sequences, one engine, and all of the padding."""
        settings = (system.batch, system.padding_stride, system.engines)
        return settings == (f"{self.kv_cache_dtype}/{self.max_num_seqs}", 1, 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Counterpart:
    """A published row and the measured system that is most like it, where there is one."""

    published: PublishedResult
    system: System | None

    @property
    def measured_reqs_per_sec(self) -> float | None:
        return self.system.median("reqs_per_sec") if self.system else None

    @property
    def ratio(self) -> float | None:
        """Measured throughput over the published one."""
        measured = self.measured_reqs_per_sec
        return None if measured is None else measured / self.published.reqs_per_sec

    @property
    def caveats(self) -> tuple[str, ...]:
        """Why the ratio does not compare like with like."""
        c = self.system
        if c is None:
            return ()
        count = c.newest.metric("utterances")
        return (
            *(() if self.published.has_settings_of(c) else ("other settings",)),
            *(("random weights",) if c.newest.random_weights else ()),
            *(() if count == UTTERANCES else (f"other data: {count or 0:,.0f} utterances",)),
        )


def named(family: str, gpu: str) -> bool:
    """Whether a GPU's name holds a family's as a whole word."""
    return re.search(rf"\b{re.escape(family)}\b", gpu) is not None


def published_results() -> tuple[PublishedResult, ...]:
    with RESULTS.open(encoding="utf-8", newline="") as file:
        return tuple(
            PublishedResult(
                gpu=row["gpu"],
                model=row["model"],
                kv_cache_dtype=row["kv_cache_dtype"],
                max_num_seqs=int(row["max_num_seqs"]),
                wer=float(row["wer"]),
                reqs_per_sec=float(row["reqs_per_sec"]),
            )
            for row in csv.DictReader(file)
        )


def counterparts(measured: Iterable[System], *, every: bool = False) -> tuple[Counterpart, ...]:
    """The published rows whose GPU or model was measured (or every one), with the measured system most like each.

    The same settings come first, then real weights, the whole test set, and the highest throughput.
    """
    measured = tuple(measured)
    candidates = [(c, rate) for c in measured if (rate := c.median("reqs_per_sec")) is not None]

    def likeness(published: PublishedResult, system: System, rate: float) -> tuple[bool, bool, bool, float]:
        newest = system.newest
        whole = newest.metric("utterances") == UTTERANCES
        return published.has_settings_of(system), not newest.random_weights, whole, rate

    def nearest(published: PublishedResult) -> System | None:
        fitting = [(likeness(published, c, rate), c) for c, rate in candidates if published.has_gpu_and_model_of(c)]
        return max(fitting, key=lambda pair: pair[0])[1] if fitting else None

    def concerns(published: PublishedResult) -> bool:
        return any(published.has_model_of(c) or named(published.gpu, c.newest.gpu) for c in measured)

    return tuple(Counterpart(each, nearest(each)) for each in published_results() if every or concerns(each))
