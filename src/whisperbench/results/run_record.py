"""A run as a tracking server holds it: what runs are compared by."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Mapping

from whisperbench.inputs.corpus import WHOLE
from whisperbench.results.keys import fields_of
from whisperbench.results.names import ACCURACY_KEY, CONFIG_DIGEST, RANDOM_WEIGHTS, SIGNATURE, SPEED_KEY

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
        """A metric's value; None where it was not measured, or is no number (NaN, infinity)."""
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
