"""When two runs are repeats of each other: the one definition for a sweep that goes on and for a leaderboard's rows."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Self

from whisperbench.results.names import CONFIG_DIGEST, SPEED_KEY


def spread_percent(values: Sequence[float]) -> float:
    """From the lowest to the highest value, in percent of their median."""
    return 100 * (max(values) - min(values)) / statistics.median(values)


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """What runs share exactly when they are repeats: options, weights, data and GPU, engine, and CUDA MPS.

    The config digest leaves out the options that change nothing that is measured
    (`options.NOT_PART_OF_A_CONFIGURATION`).
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
