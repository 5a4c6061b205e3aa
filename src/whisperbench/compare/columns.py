"""Columns of a leaderboard as data, the most important first; all tables and files are made from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from whisperbench.compare.document import NOT_MEASURED
from whisperbench.compare.rank import Leaderboard, Row
from whisperbench.compare.verdicts import loops_of
from whisperbench.config.benchmark import OPTIONS
from whisperbench.config.option import Option
from whisperbench.results.names import METRICS, Metric
from whisperbench.stats.clusters import Interval

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


def _limits(interval: Interval | None) -> str:
    """` (2.05–2.60)`, or an empty string without an interval."""
    return f" ({interval.low:.2f}–{interval.high:.2f})" if interval else ""


def _rate(metric: Metric) -> Callable[[Row], str]:
    """A function that formats a rate or a cost (USD in cents), and reqs/sec with its noise from run to run if known."""
    shift = 2 if metric.unit.startswith("USD") else 0

    def show(row: Row) -> str:
        value = row.system.median(metric.name)
        if value is None:
            return NOT_MEASURED
        noise = noise_of(row) if metric.name == "reqs_per_sec" else ""
        return f"{value * 10**shift:,.{metric.digits - shift}f}{noise}"

    return show


def noise_of(row: Row) -> str:
    """` (±0.4 %)`: standard deviation from run to run; an empty string after one run."""
    return f" (±{row.speed.noise_percent:.1f} %)" if row.speed and row.speed.noise_percent is not None else ""


def _revision(row: Row) -> str:
    return (row.system.revision or NOT_MEASURED)[:8]


def verdict_of(row: Row) -> str:
    """`same (-0.10 to +0.16)`, `reference`, or the reason why there is no verdict."""
    if row.is_reference:
        return "reference"
    if row.verdict is None:
        return f"not compared: {row.no_verdict}" if row.no_verdict else NOT_MEASURED
    return f"{row.verdict.outcome} ({row.verdict.limits})" if row.verdict.limits else row.verdict.outcome


def _outcome(row: Row) -> Value:
    return row.verdict.outcome if row.verdict else "reference" if row.is_reference else row.no_verdict


def _of_verdict(name: str) -> Callable[[Row], Value]:
    """A figure of the verdict; None without one, and for limits that are infinite."""

    def value(row: Row) -> Value:
        found = getattr(row.verdict, name, None)
        return found if found is not None and math.isfinite(found) else None

    return value


def _when(pattern: str) -> Callable[[Row], str]:
    return lambda row: row.system.newest.start_time.strftime(pattern)


def _error_columns(rate: str) -> tuple[Column, ...]:
    """The columns of the WER or of the CER, which are empty in the rows that are ranked by the other one."""
    name = rate.lower()

    def value(row: Row) -> float | None:
        return row.system.wer if row.system.error_rate == rate else None

    def interval(row: Row) -> Interval | None:
        return row.system.interval if row.system.error_rate == rate else None

    def show(row: Row) -> str:
        found = value(row)
        return NOT_MEASURED if found is None else f"{found:.2f}{_limits(interval(row))}"

    limits = (_limit(f"{name}_ci", side, interval) for side in ("low", "high"))
    return Column(name, f"{rate} %", value, show, "if known", True), *limits


def _speed_interval(row: Row) -> Interval | None:
    return row.speed.interval if row.speed else None


def _of_metric(metric: Metric) -> Column:
    shown: Shown = "always" if metric.rate else "if known"
    show = _rate(metric)
    return Column(metric.name, metric.heading or "", lambda row: row.system.median(metric.name), show, shown, True)


def _limit(name: str, side: str, interval: Callable[[Row], Interval | None]) -> Column:
    return Column(f"{name}_{side}", f"{name} {side}", lambda row: getattr(interval(row), side, None), shown="in files")


FIGURES = {metric.name: _of_metric(metric) for metric in METRICS if metric.heading}
FIRST = ("reqs_per_sec", "rtfx", "usd_per_audio_hour")

VERDICT_FIGURES = {"wer_difference": "difference", "wer_difference_low": "low", "wer_difference_high": "high"}

_RESOLVED = (
    Column("model", "model", lambda row: row.system.model),
    Column("model_revision", "revision", lambda row: row.system.revision, _revision, "if rows look alike"),
    Column("engine", "engine", lambda row: row.system.engine),
    Column("dtype", "dtype", _param("dtype"), None, "if an option differs"),
    Column("batch_size", "batch", _param("batch_size"), None, "if an option differs"),
)
"""Columns of options that show the resolved value.  The others show the requested one, also with `param="resolved"`."""


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
    OF_OPTIONS["model"],
    Column("gpu", "gpu", lambda row: row.system.gpu),
    Column("gpu_power_limit_watts", "power limit W", _param("gpu_power_limit_watts"), None, "if rows look alike"),
    Column("cpu_cores", "cores", _param("cpu_cores"), None, "if rows look alike"),
    *(column for name, column in OF_OPTIONS.items() if name not in AHEAD),
    *_error_columns("WER"),
    *_error_columns("CER"),
    Column("wer_verdict", "accuracy", _outcome, verdict_of, "if known"),
    Column("repetition_loops", "loops", lambda row: row.system.typical.metric("repetition_loops"),
        lambda row: loops_of(row.system) or NOT_MEASURED, "if known", True),
    *(FIGURES[name] for name in FIRST),
    OF_OPTIONS["engine"],
    Column("model_id", "model id", lambda row: row.system.model_id, None, "if rows look alike"),
    OF_OPTIONS["model_revision"],
    Column("run_id", "run", lambda row: row.system.newest.run_id, lambda row: row.system.newest.run_id[:8], link=True),
    Column("settings", "other settings", lambda row: row.system.other_settings, None, "if known"),
    *(column for name, column in FIGURES.items() if name not in FIRST),
    Column("pareto", "Pareto", lambda row: row.pareto, lambda row: "★" if row.pareto else "", "if known"),
    Column("n", "n", lambda row: row.speed.runs if row.speed else len(row.system.runs), numeric=True),
    Column("when", "when", _when("%Y-%m-%d %H:%M"), _when("%Y-%m-%d")),
    Column("who", "who", lambda row: ", ".join(sorted({run.user for run in row.system.runs}))),
    Column("notes", "notes", lambda row: "; ".join(row.system.warnings), None, "if known"),
    *(_limit("reqs_per_sec", side, _speed_interval) for side in ("low", "high")),
    *(Column(name, name, _of_verdict(field), shown="in files") for name, field in VERDICT_FIGURES.items()),
    Column("weights", "weights", lambda row: ("real", "random")[row.system.newest.random_weights], shown="in files"),
    Column("engines", "engines", lambda row: row.system.engines, shown="in files"),
    Column("torch_version", "torch", _param("torch_version"), shown="in files"),
    Column("cuda_driver", "driver", _param("cuda_driver"), shown="in files"),
    Column("config_digest", "digest", lambda row: row.system.newest.config_digest, shown="in files"),
)  # fmt: skip
