"""Columns of a leaderboard as data, the most important first; all tables and files are made from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from whisperbench.compare.document import NOT_MEASURED, number
from whisperbench.compare.rank import Leaderboard, Row
from whisperbench.compare.systems import other_settings
from whisperbench.config.benchmark import OPTIONS
from whisperbench.config.option import Option
from whisperbench.results.names import METRICS, Metric
from whisperbench.stats.clusters import Interval
from whisperbench.stats.paired import PairedDifference

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


def noise_of(row: Row) -> str:
    """` (±0.4 %)`: standard deviation from run to run; an empty string after one run."""
    return f" (±{row.speed.noise_percent:.1f} %)" if row.speed and row.speed.noise_percent is not None else ""


def verdict_of(row: Row) -> str:
    """`same (-0.10 to +0.16)`, `reference`, or the reason why there is no verdict."""
    if row.verdict is None:
        reason = f"not compared: {row.no_verdict}" if row.no_verdict else NOT_MEASURED
        return "reference" if row.is_reference else reason
    return f"{row.verdict.outcome} ({row.verdict.limits})" if row.verdict.limits else row.verdict.outcome


def _outcome(row: Row) -> Value:
    return row.verdict.outcome if row.verdict else "reference" if row.is_reference else row.no_verdict


def _param(name: str) -> Callable[[Row], Value]:
    return lambda row: row.system.param(name)


def _limits(name: str, interval: Callable[[Row], Interval | PairedDifference | None]) -> tuple[Column, Column]:
    """The columns of the limits of an interval, in files only."""
    return (
        Column(f"{name}_low", "low", lambda row: getattr(interval(row), "low", None), shown="in files"),
        Column(f"{name}_high", "high", lambda row: getattr(interval(row), "high", None), shown="in files"),
    )


def _error_columns(rate: str) -> tuple[Column, ...]:
    """The columns of the WER or of the CER, which are empty in the rows that are ranked by the other one."""

    def metric(name: str) -> Callable[[Row], float | None]:
        return lambda row: row.system.typical.metric(name) if row.system.error_rate == rate else None

    name = rate.lower()
    value, low, high = map(metric, (name, f"{name}_ci_low", f"{name}_ci_high"))

    def show(row: Row) -> str:
        limits = f" ({number(low(row))}–{number(high(row))})" if low(row) is not None else ""
        return number(value(row)) + limits

    return (
        Column(name, f"{rate} %", value, show, "if known", numeric=True),
        Column(f"{name}_ci_low", "low", low, shown="in files"),
        Column(f"{name}_ci_high", "high", high, shown="in files"),
    )


def _of_metric(metric: Metric) -> Column:
    """The column of a metric; USD are shown in cents, reqs/sec with its noise from run to run if it is known."""
    factor, digits = (100, metric.digits - 2) if metric.unit.startswith("USD") else (1, metric.digits)

    def value(row: Row) -> float | None:
        return row.system.median(metric.name)

    def show(row: Row) -> str:
        found = value(row)
        return number(found and found * factor, digits) + (noise_of(row) if metric.name == "reqs_per_sec" else "")

    shown: Shown = "always" if metric.rate else "if known"
    return Column(metric.name, metric.heading or "", value, show, shown, numeric=True)


def option_columns(options: Mapping[str, Option]) -> dict[str, Column]:
    """Columns of the options that declare a heading, by option name."""

    def requested(option: Option) -> Callable[[Row], Value]:
        return lambda row: row.system.requested(option)

    resolved, found = {column.name: column for column in _RESOLVED}, {}
    for name, each in options.items():
        if each.column:
            column = resolved.get(name) or Column(name, each.column, requested(each), None, "if an option differs")
            found[name] = dataclasses.replace(column, option=each, numeric=each.type in (int, float))
    return found


_RESOLVED = (
    Column("model", "model", lambda row: row.system.model),
    Column("model_revision", "revision", _param("model_revision_resolved"),
        lambda row: (row.system.param("model_revision_resolved") or NOT_MEASURED)[:8], "if rows look alike"),
    Column("engine", "engine", lambda row: row.system.engine),
    Column("dtype", "dtype", _param("dtype"), None, "if an option differs"),
    Column("batch_size", "batch", _param("batch_size"), None, "if an option differs"),
)  # fmt: skip
"""Columns of options that show the resolved value.  The others show the requested one, also with `param="resolved"`."""

OF_OPTIONS = option_columns(OPTIONS)
FIGURES = {metric.name: _of_metric(metric) for metric in METRICS if metric.heading}
FIRST = ("reqs_per_sec", "rtfx", "usd_per_audio_hour")

COLUMNS = (
    OF_OPTIONS["model"],
    Column("gpu", "gpu", lambda row: row.system.gpu),
    Column("gpu_power_limit_watts", "power limit W", _param("gpu_power_limit_watts"), None, "if rows look alike"),
    Column("cpu_cores", "cores", _param("cpu_cores"), None, "if rows look alike"),
    *(column for name, column in OF_OPTIONS.items() if name not in ("model", "model_revision", "engine")),
    *_error_columns("WER"),
    *_error_columns("CER"),
    Column("wer_verdict", "accuracy", _outcome, verdict_of, "if known"),
    Column("repetition_loops", "loops", lambda row: row.system.typical.metric("repetition_loops"),
        lambda row: row.system.loops or NOT_MEASURED, "if known", True),
    *(FIGURES[name] for name in FIRST),
    OF_OPTIONS["engine"],
    Column("model_id", "model id", lambda row: row.system.model_id, None, "if rows look alike"),
    OF_OPTIONS["model_revision"],
    Column("run_id", "run", lambda row: row.system.newest.run_id, lambda row: row.system.newest.run_id[:8], link=True),
    Column("settings", "other settings", lambda row: other_settings(OPTIONS, row.system.newest.options), None,
        "if known"),
    *(column for name, column in FIGURES.items() if name not in FIRST),
    Column("pareto", "Pareto", lambda row: row.pareto, lambda row: "★" if row.pareto else "", "if known"),
    Column("n", "n", lambda row: row.speed.runs if row.speed else len(row.system.runs), numeric=True),
    Column("when", "when", lambda row: f"{row.system.newest.start_time:%Y-%m-%d %H:%M}",
        lambda row: f"{row.system.newest.start_time:%Y-%m-%d}"),
    Column("who", "who", lambda row: ", ".join(sorted({run.user for run in row.system.runs}))),
    Column("notes", "notes", lambda row: "; ".join(row.system.warnings), None, "if known"),
    *_limits("reqs_per_sec", lambda row: row.speed.interval if row.speed else None),
    Column("wer_difference", "wer_difference", lambda row: row.verdict.difference if row.verdict else None,
        shown="in files"),
    *_limits("wer_difference", lambda row: row.verdict if row.verdict and row.verdict.limits else None),
    Column("weights", "weights", lambda row: ("real", "random")[row.system.newest.random_weights], shown="in files"),
    Column("engines", "engines", lambda row: row.system.engines, shown="in files"),
    Column("torch_version", "torch", _param("torch_version"), shown="in files"),
    Column("cuda_driver", "driver", _param("cuda_driver"), shown="in files"),
    Column("config_digest", "digest", lambda row: row.system.newest.config_digest, shown="in files"),
)  # fmt: skip
