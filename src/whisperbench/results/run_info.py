"""Facts of a run that are known before the timed region: data, model, hardware and engine."""

from __future__ import annotations

import dataclasses

from whisperbench.engines.base import EngineInfo
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.settings import EngineSettings


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
    """Model, data, hardware and engine of a run."""

    model_id: str
    model_revision: str | None
    dataset: Dataset
    utterances_over_30s: int
    silent_utterances: int
    hardware: Hardware
    settings: EngineSettings
    engine: EngineInfo
    git_dirty: bool | None
