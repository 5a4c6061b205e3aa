"""A run as compare and sweep read it from the tracking server, and its identity."""

from __future__ import annotations

import dataclasses
import datetime
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Self

from whisperbench.corpus.corpus import WHOLE
from whisperbench.results.keys import fields_of
from whisperbench.results.names import (
    ACCURACY_KEY,
    CONFIG_DIGEST,
    RANDOM_WEIGHTS,
    SIGNATURE,
    SPEED_KEY,
)


def spread_percent(values: Sequence[float]) -> float:
    """From the lowest to the highest value, in percent of their median."""
    return 100 * (max(values) - min(values)) / statistics.median(values)


@dataclasses.dataclass(frozen=True, slots=True)
class RunIdentity:
    """What runs share exactly when they are repeats: options, weights, data and GPU, engine, and CUDA MPS.

    The config digest leaves out the options that change nothing that is measured
    (`Option.identity`).
    """

    config_digest: str | None
    model_revision: str | None
    speed_key: str | None
    engine_version: str | None
    cuda_mps: bool = False

    @classmethod
    def of(cls, params: Mapping[str, str], tags: Mapping[str, str]) -> Self:
        """The identity of a run with these params and tags."""
        return cls(
            config_digest=tags.get(CONFIG_DIGEST),
            model_revision=params.get("model_revision_resolved") or params.get("model_revision"),
            speed_key=tags.get(SPEED_KEY),
            engine_version=params.get("engine_version", "").partition("+")[0] or None,
            cuda_mps="cuda_mps" in params,
        )

    @property
    def asked_for(self) -> Self:
        """The same without what only the run itself finds out: all that a sweep can want."""
        return dataclasses.replace(self, cuda_mps=False)


LARGEST = 1e300
"""MLflow stores infinity as 1.8e308; nothing that is measured comes near."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RunRecord:
    """One run as the tracking server holds it; `history` has a metric's repeats where there were several."""

    run_id: str
    experiment_id: str
    experiment: str
    name: str
    user: str
    start_time: datetime.datetime
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    history: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)

    def metric(self, name: str) -> float | None:
        """A metric's value; None where it was not measured or is not a finite number."""
        value = self.metrics.get(name)
        return value if value is not None and math.isfinite(value) and abs(value) < LARGEST else None

    def values(self, name: str) -> tuple[float, ...]:
        """A metric's repeats, or its one value."""
        value = self.metric(name)
        return tuple(self.history.get(name, ())) or (() if value is None else (value,))

    @property
    def accuracy_key(self) -> str | None:
        return self.tags.get(ACCURACY_KEY)

    @property
    def speed_key(self) -> str | None:
        return self.tags.get(SPEED_KEY)

    @property
    def config_digest(self) -> str | None:
        return self.tags.get(CONFIG_DIGEST)

    @property
    def random_weights(self) -> bool:
        return self.tags.get(RANDOM_WEIGHTS) == "true"

    @property
    def data(self) -> str:
        """`librispeech test-clean`, as the signature has it; only the name where the corpus has no splits."""
        name, _, split = fields_of(self.tags.get(SIGNATURE, "")).get("data", "").partition("#")[0].rpartition("/")
        name = name or self.params.get("corpus", "unknown data").rstrip("/").rpartition("/")[2]
        split = split or self.params.get("split", WHOLE)
        return name if split == WHOLE else f"{name} {split}"

    @property
    def gpu(self) -> str:
        return self.params.get("gpu_name", "unknown")
