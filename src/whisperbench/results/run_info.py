"""Records of a run: its data set, the facts known before its engine starts, and its content."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated

from annotated_types import Ge, Lt

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.settings import EngineSettings

END_OF_TIME = 253_402_300_800_000
"""The year 10000 in milliseconds since 1970, which Python's dates do not reach."""
Milliseconds = Annotated[int, Ge(0), Lt(END_OF_TIME)]
"""A timestamp in milliseconds since 1970, as in MLflow."""


@dataclasses.dataclass(frozen=True, slots=True)
class Dataset:
    """The data set of a run in the form of MLflow's `log_input`.

    `digest` has at most 36 characters, which is MLflow's limit; `rows` is the number of utterances.
    """

    name: str
    split: str
    digest: str
    source: str
    rows: int


@dataclasses.dataclass(frozen=True, slots=True)
class RunInfo:
    """Model, data, hardware and options of a run, which are known before its engine starts."""

    model_id: str
    model_revision: str | None
    dataset: Dataset
    utterances_over_30s: int
    silent_utterances: int
    hardware: Hardware
    settings: EngineSettings
    git_dirty: bool | None

    @property
    def config(self) -> BenchmarkConfig:
        return self.settings.config


@dataclasses.dataclass(frozen=True, slots=True)
class RunData:
    """The content of one run, except its artifacts.

    `metrics` has the rounded values of the median repeat, and `history` maps each speed metric with a heading
    to its value in each valid repeat.  Before the measurement both are empty and the times are 0.
    """

    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    description: str
    dataset: Dataset
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    history: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    started_ms: Milliseconds = 0
    ended_ms: Milliseconds = 0
