"""Which runs a comparison was asked for."""

from __future__ import annotations

import fnmatch

from whisperbench.options.compare import CompareConfig
from whisperbench.results.run_record import RunRecord


def selects(options: CompareConfig, record: RunRecord) -> bool:
    """Whether a run's GPU and model match the globs of `options`; case does not matter."""
    gpu = options.gpu if set(options.gpu) & set("*?[") else f"*{options.gpu}*"
    model_id = record.params.get("model_id", "")
    models = (record.params.get("model", ""), model_id, model_id.rpartition("/")[2])
    return _matches(record.gpu, gpu) and any(_matches(name, options.model) for name in models)


def _matches(text: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(text.lower(), pattern.lower())
