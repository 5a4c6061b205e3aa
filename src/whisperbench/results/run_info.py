"""What is found out before the clock starts: the data, the model, the hardware and the engine as they are."""

from __future__ import annotations

import dataclasses

from whisperbench.engines.base import EngineInfo
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.settings import EngineSettings


@dataclasses.dataclass(frozen=True, slots=True)
class Dataset:
    """The data of a run, as MLflow's `log_input` takes it.

    `digest` has at most 36 characters; `rows` is the number of utterances.
    """

    name: str
    split: str
    digest: str
    source: str
    rows: int


@dataclasses.dataclass(frozen=True, slots=True)
class RunInfo:
    """What was found out before the clock started."""

    model_id: str
    model_revision: str | None
    dataset: Dataset
    utterances_over_30s: int
    hardware: Hardware
    settings: EngineSettings
    engine: EngineInfo
    git_dirty: bool | None
