"""Reports of made-up runs, for tests of what is made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from tests.support.stores import run_of
from whisperbench.compare.difference import Difference
from whisperbench.compare.published import counterparts
from whisperbench.compare.rank import Leaderboard
from whisperbench.compare.render import as_markdown
from whisperbench.compare.report import Report
from whisperbench.comparison import rank_all
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.config.compare import CompareConfig
from whisperbench.results.links import Links
from whisperbench.results.record import RunRecord
from whisperbench.results.transcripts import read_table

LINKS = Links("http://mlflow.example")
ORIGIN = {"Command": "whisperbench compare", "Created": "3 November 2026, 12:05 UTC", "Store": "sqlite:///mlflow.db"}
LARGE, TURBO, BASE = (BenchmarkConfig(model=model) for model in ("large-v3", "large-v3-turbo", "base"))
FP8 = BenchmarkConfig(model="large-v3", kv_cache_dtype="fp8")
A10 = "NVIDIA A10"
SCRIPT, FORMULA, ESCAPE = "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "\x1b[31mred\x1b]0;title\x07"
HOSTILE = f"{SCRIPT}{ESCAPE}|`*[x](javascript:alert(1))\n# heading \u202e"


def board_of(*runs: RunRecord, sort: str = "wer", transcripts: Mapping[str, str] | None = None) -> Leaderboard:
    """The main leaderboard of these runs."""
    return report_of(*runs, sort=sort, transcripts=transcripts).every[0]


def report_of(
    *runs: RunRecord, sort: str = "wer", published: bool = False, transcripts: Mapping[str, str] | None = None
) -> Report:
    stored = {run_id: read_table(text) for run_id, text in (transcripts or {}).items()}
    boards, left_out = rank_all(runs, CompareConfig(sort=sort), lambda _: stored)
    found = counterparts([row.system for board in boards for row in board.rows]) if published else ()
    return Report(boards, left_out, found, None, (), {}, LINKS, "every experiment", ORIGIN)


def leaderboard_markdown(report: Report) -> str:
    return as_markdown(report.parts)


def difference_of(*runs: RunRecord, transcripts: Sequence[str] = (), margin: float = 0.2) -> Difference:
    """The difference of two runs; `transcripts` are those of the first and of the second."""
    stored = {run.run_id: read_table(text) for run, text in zip(runs, transcripts, strict=False)}
    return Difference.of((runs[0], runs[1]), stored, margin, str)


def difference_markdown(found: Difference) -> str:
    return as_markdown([*found.parts(LINKS), *found.rest])


def hostile_run() -> RunRecord:
    """A run whose every text is an attack."""
    run = run_of(BenchmarkConfig(model="m", corpus="c"), gpu=HOSTILE, name=FORMULA, user=HOSTILE)
    params = {
        **run.params,
        "model": HOSTILE,
        "dtype": FORMULA,
        "torch_version": HOSTILE,
        "engine_version": HOSTILE,
        "quantization": HOSTILE,
    }
    return dataclasses.replace(run, params=params, tags={**run.tags, "whisperbench.warnings": HOSTILE})
