"""Reports of made-up runs, for tests of what is made of them."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping

from tests.support.stores import run_of
from whisperbench.compare.difference import Difference
from whisperbench.compare.document import Origin
from whisperbench.compare.groups import Grouping, differences
from whisperbench.compare.published import counterparts
from whisperbench.compare.rank import rank
from whisperbench.compare.render import as_markdown
from whisperbench.compare.report import Report
from whisperbench.compare.verdicts import Verdicts
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.results.links import Links
from whisperbench.results.record import RunRecord
from whisperbench.results.transcripts import read_table

LINKS = Links("http://mlflow.example")
NOON = datetime.datetime(2026, 11, 3, 12, 5, tzinfo=datetime.UTC)
ORIGIN = Origin("whisperbench compare", "sqlite:///mlflow.db", NOON)
LARGE, TURBO, BASE = (BenchmarkConfig(model=model) for model in ("large-v3", "large-v3-turbo", "base"))
SCRIPT, FORMULA, ESCAPE = "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "\x1b[31mred\x1b]0;title\x07"
HOSTILE = f"{SCRIPT}{ESCAPE}|`*[x](javascript:alert(1))\n# heading \u202e"


def report_of(
    *runs: RunRecord,
    sort: str = "wer",
    published: bool = False,
    transcripts: Mapping[str, str] | None = None,
    margin: float = 0.2,
) -> Report:
    grouping = Grouping.of(runs, sort)
    stored = {run_id: read_table(text) for run_id, text in (transcripts or {}).items()}
    boards = tuple(rank(group, sort, Verdicts.of(group, stored, margin)) for group in grouping.groups)
    found = counterparts([c for group in grouping.groups for c in group.systems]) if published else ()
    alone = tuple(rank(g, sort, Verdicts(), differs=differences(grouping.groups[0], g)) for g in grouping.alone)
    return Report(boards, alone, grouping.left_out, found, None, (), {}, LINKS, "every experiment", ORIGIN)


def leaderboard_markdown(report: Report) -> str:
    return as_markdown(report.parts)


def difference_markdown(found: Difference, links: Links) -> str:
    return as_markdown([*found.parts(links), *found.rest])


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
