"""A run as read from the tracking server, and the identity that makes runs repeats of each other."""

from __future__ import annotations

import dataclasses
import datetime
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Self

from whisperbench.corpus.corpus import WHOLE
from whisperbench.results.keys import fields_of
from whisperbench.results.names import (
    ACCURACY_KEY,
    CONFIG_DIGEST,
    DISTURBED,
    METRICS,
    OPTIONS_TAG,
    REPEATS,
    SIGNATURE,
    SPEED_KEY,
    error_metric,
    is_possible,
)

TIMED = frozenset(metric.name for metric in METRICS if metric.timed)


def spread_percent(values: Sequence[float]) -> float:
    """Difference between the highest and the lowest value, in percent of their median."""
    return 100 * (max(values) - min(values)) / statistics.median(values)


@dataclasses.dataclass(frozen=True, slots=True)
class RunIdentity:
    """Configuration, weights, data, GPU and engine of a run; two runs with equal identities are repeats.

    The config digest covers the options with `Option.identity`, which are those that affect the result.
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
            model_revision=params.get("model_revision_resolved") or None,
            speed_key=tags.get(SPEED_KEY),
            engine_version=params.get("engine_version", "").partition("+")[0] or None,
            cuda_mps="cuda_mps" in params,
        )

    @property
    def asked_for(self) -> Self:
        """The part of the identity that is known before the run, for a sweep that looks for finished runs."""
        return dataclasses.replace(self, cuda_mps=False)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RunRecord:
    """A run on the tracking server; `history` maps a metric to its values in the repeats, if the run has several.

    `seconds` is the duration of the whole run, which includes engine start and logging.
    """

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
    seconds: float = 0.0

    def metric(self, name: str) -> float | None:
        """A metric's value; None if it was not measured, is impossible, or depends on the speed of a disturbed run."""
        if self.disturbed and name in TIMED:
            return None
        value = self.metrics.get(name)
        return value if value is not None and is_possible(name, value) else None

    def values(self, name: str) -> tuple[float, ...]:
        """A metric's values in all repeats, its single value, or nothing if `metric` is None."""
        value = self.metric(name)
        return () if value is None else tuple(self.history.get(name, ())) or (value,)

    def count(self, name: str) -> int:
        """A param that is a number of GPUs or engines; 1 for a CPU, without the param, or if it is damaged."""
        text = self.params.get(name, "")
        return max(1, int(text)) if re.fullmatch("[0-9]{1,6}", text) else 1

    @property
    def wer(self) -> float | None:
        """The WER in percent, or the CER if characters are counted."""
        return self.metric(error_metric(self.metrics))

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
    def options(self) -> Mapping[str, str]:
        """The options that differ from their defaults, as requested; `params` has them as resolved."""
        return fields_of(self.tags.get(OPTIONS_TAG, ""))

    @property
    def disturbed(self) -> str | None:
        """Other programs that used the machine in the timed region, if any."""
        return self.tags.get(DISTURBED)

    @property
    def damaged(self) -> str | None:
        """Why the rates of the repeats cannot be read, if so; then `history` is empty."""
        return f"its tag {REPEATS} is damaged" if REPEATS in self.tags and not self.history else None

    @property
    def random_weights(self) -> bool:
        return self.params.get("load_format") == "dummy"

    @property
    def data(self) -> str:
        """Corpus and split from the signature, like `librispeech test-clean`; only the corpus if it has no splits."""
        name, _, split = fields_of(self.tags.get(SIGNATURE, "")).get("data", "").partition("#")[0].rpartition("/")
        name = name or self.params.get("corpus", "unknown data").rstrip("/").rpartition("/")[2]
        split = split or self.params.get("split") or WHOLE
        return name if split == WHOLE else f"{name} {split}"

    @property
    def gpu(self) -> str:
        return self.params.get("gpu_name", "unknown")
