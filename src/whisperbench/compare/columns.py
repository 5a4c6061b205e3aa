"""Columns of a leaderboard as data, the most important first; all tables and files are made from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from whisperbench.compare.document import NOT_MEASURED
from whisperbench.compare.rank import Leaderboard, Row
from whisperbench.config.benchmark import OPTIONS
from whisperbench.config.option import Option
from whisperbench.results.names import METRICS, Metric
from whisperbench.stats.bootstrap import Interval

Value = str | int | float | bool | None
Shown = Literal["always", "if known", "if an option differs", "if rows look alike", "in files"]
"""Condition under which a table shows a column; CSV and JSON have every column."""


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One column: `name` is the heading in files, `heading` in tables; `show` formats a cell of a table."""

    name: str
    heading: str
    value: Callable[[Row], Value]
    show: Callable[[Row], str] | None = None
    shown: Shown = "always"
    numeric: bool = False
    link: bool = False
    option: Option | None = None

    def text(self, row: Row) -> str:
        if self.show is not None:
            return self.show(row)
        value = self.value(row)
        return NOT_MEASURED if value is None else str(value)

    def is_shown(self, rows: Sequence[Row]) -> bool:
        values = [self.value(row) for row in rows]
        match self.shown:
            case "if known":
                return any(value is not None and value is not False and value != "" for value in values)
            case "if an option differs" if self.option:
                requested = {row.system.requested(self.option) for row in rows}
                return len(set(values)) > 1 or not requested <= {None, self.option.default_text}
            case "if rows look alike":
                looks = [(row.system.label, row.system.gpu) for row in rows]
                return len(set(zip(looks, values, strict=True))) > len(set(looks))
        return self.shown == "always"


def shown_columns(board: Leaderboard) -> list[Column]:
    return [column for column in COLUMNS if column.is_shown(board.rows)]


def _param(name: str) -> Callable[[Row], Value]:
    return lambda row: row.system.param(name)


def _limits(interval: Interval | None, digits: int | None = None) -> str:
    """` (2.05–2.60)`, or an empty string without an interval."""
    if interval is None:
        return ""
    low, high = (f"{v:,.{(2 if v < 100 else 1) if digits is None else digits}f}" for v in (interval.low, interval.high))
    return f" ({low}–{high})"


def _rate(metric: Metric) -> Callable[[Row], str]:
    """Formats the median (of USD in cents); reqs/sec with its 95 % interval if it is known."""
    shift = 2 if metric.unit.startswith("USD") else 0

    def show(row: Row) -> str:
        median = row.system.median(metric.name)
        if median is None:
            return NOT_MEASURED
        limits = _limits(row.rate_interval) if metric.name == "reqs_per_sec" else ""
        return f"{median * 10**shift:,.{metric.digits - shift}f}{limits}"

    return show


def _rank(row: Row) -> str:
    return f"{row.rank or NOT_MEASURED}{' =' * row.tied}"


def _revision(row: Row) -> str:
    return (row.system.revision or NOT_MEASURED)[:8]


def _difference(row: Row) -> Value:
    return row.test.difference if row.test else row.no_test


def _against_the_best(row: Row) -> str:
    if row.no_test:
        return f"not tested: {row.no_test}"
    if row.most_accurate:
        return "best"
    if row.test:
        return f"{row.test.difference:+.2f} (p = {row.test.p_value:.3f})"
    return "intervals far apart" if row.system.wer is not None else NOT_MEASURED


def _when(pattern: str) -> Callable[[Row], str]:
    return lambda row: row.system.newest.start_time.strftime(pattern)


def _wer(row: Row) -> str:
    return NOT_MEASURED if row.system.wer is None else f"{row.system.wer:.2f}{_limits(row.system.interval, 2)}"


def _of_metric(metric: Metric) -> Column:
    shown: Shown = "always" if metric.rate else "if known"
    show = _rate(metric)
    return Column(metric.name, metric.heading or "", lambda row: row.system.median(metric.name), show, shown, True)


def _limit(name: str, side: str, interval: Callable[[Row], Interval | None]) -> Column:
    return Column(f"{name}_{side}", f"{name} {side}", lambda row: getattr(interval(row), side, None), shown="in files")


FIGURES = {metric.name: _of_metric(metric) for metric in METRICS if metric.heading}
FIRST = ("reqs_per_sec", "rtfx", "usd_per_audio_hour")

_RESOLVED = (
    Column("model", "model", lambda row: row.system.model),
    Column("model_revision", "revision", lambda row: row.system.revision, _revision, "if rows look alike"),
    Column("engine", "engine", lambda row: row.system.engine),
    Column("dtype", "dtype", _param("dtype_effective"), None, "if an option differs"),
    Column("batch_size", "batch", _param("batch_size_effective"), None, "if an option differs"),
)
"""Columns of options that show the resolved value instead of the requested one."""


def _requested(option: Option) -> Callable[[Row], Value]:
    return lambda row: row.system.requested(option)


def option_columns(options: Mapping[str, Option]) -> dict[str, Column]:
    """Columns of the options that declare a heading, by option name."""
    resolved, found = {column.name: column for column in _RESOLVED}, {}
    for name, each in options.items():
        if each.column:
            requested = Column(name, each.column, _requested(each), None, "if an option differs")
            numeric = each.type in (int, float)
            found[name] = dataclasses.replace(resolved.get(name, requested), option=each, numeric=numeric)
    return found


OF_OPTIONS = option_columns(OPTIONS)
AHEAD = ("model", "model_revision", "engine")

COLUMNS = (
    Column("rank", "rank", lambda row: row.rank, _rank, "if known", True),
    OF_OPTIONS["model"],
    Column("gpu", "gpu", lambda row: row.system.gpu),
    Column("gpu_power_limit_watts", "power limit W", _param("gpu_power_limit_watts"), None, "if rows look alike"),
    Column("cpu_cores", "cores", _param("cpu_cores"), None, "if rows look alike"),
    *(column for name, column in OF_OPTIONS.items() if name not in AHEAD),
    Column("wer", "WER %", lambda row: row.system.wer, _wer, "if known", True),
    *(FIGURES[name] for name in FIRST),
    OF_OPTIONS["engine"],
    Column("model_id", "model id", lambda row: row.system.model_id, None, "if rows look alike"),
    OF_OPTIONS["model_revision"],
    Column("run_id", "run", lambda row: row.system.newest.run_id, lambda row: row.system.newest.run_id[:8], link=True),
    Column("settings", "other settings", lambda row: row.system.other_settings, None, "if known"),
    Column("wer_difference", "against the best", _difference, _against_the_best, "if known", True),
    *(column for name, column in FIGURES.items() if name not in FIRST),
    Column("pareto", "Pareto", lambda row: row.pareto, lambda row: "★" if row.pareto else "", "if known"),
    Column("n", "n", lambda row: len(row.system.values("reqs_per_sec")) or len(row.system.runs), numeric=True),
    Column("when", "when", _when("%Y-%m-%d %H:%M"), _when("%Y-%m-%d")),
    Column("who", "who", lambda row: ", ".join(sorted({run.user for run in row.system.runs}))),
    Column("notes", "notes", lambda row: "; ".join(row.system.warnings), None, "if known"),
    Column("tied", "tied", lambda row: row.tied, shown="in files"),
    *(_limit("wer_ci", side, lambda row: row.system.interval) for side in ("low", "high")),
    *(_limit("reqs_per_sec", side, lambda row: row.rate_interval) for side in ("low", "high")),
    Column("wer_p_value", "p", lambda row: row.test.p_value if row.test else None, shown="in files"),
    Column("weights", "weights", lambda row: ("real", "random")[row.system.newest.random_weights], shown="in files"),
    Column("engines", "engines", lambda row: row.system.engines, shown="in files"),
    Column("vllm_version", "vLLM", _param("vllm_version"), shown="in files"),
    Column("cuda_driver", "driver", _param("cuda_driver"), shown="in files"),
    Column("config_digest", "digest", lambda row: row.system.newest.config_digest, shown="in files"),
)  # fmt: skip
