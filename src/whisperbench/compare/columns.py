"""The columns of a leaderboard, as data: the tables for people, the CSV and the JSON are all made from this list.

What decides comes first: a narrow screen shows the beginning of a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from whisperbench.compare.leaderboard import Board, Row
from whisperbench.compare.tables import NOT_MEASURED
from whisperbench.results.names import METRICS, Metric

Value = str | int | float | bool | None
Shown = Literal["always", "where known", "where they differ", "where not 1", "to tell rows apart", "in files"]


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """`name` heads it in files, `heading` in tables; `show` is `value` as people read it."""

    name: str
    heading: str
    value: Callable[[Row], Value]
    show: Callable[[Row], str] | None = None
    shown: Shown = "always"
    numeric: bool = False
    link: bool = False

    def text(self, row: Row) -> str:
        if self.show is not None:
            return self.show(row)
        value = self.value(row)
        return NOT_MEASURED if value is None else str(value)

    def is_shown(self, rows: Sequence[Row]) -> bool:
        """Whether a table of these rows has this column."""
        values = {self.value(row) for row in rows}
        match self.shown:
            case "always":
                return True
            case "where known":
                return any(value is not None and value is not False and value != "" for value in values)
            case "where they differ":
                return len(values) > 1
            case "where not 1":
                return any(value not in (None, 1) for value in values)
            case "to tell rows apart":
                looks = {(row.system.label, row.system.gpu) for row in rows}
                return len({(row.system.label, row.system.gpu, self.value(row)) for row in rows}) > len(looks)
            case "in files":
                return False


def shown_columns(board: Board) -> list[Column]:
    return [column for column in COLUMNS if column.is_shown(board.rows)]


def _param(name: str) -> Callable[[Row], Value]:
    return lambda row: row.system.param(name)


def _of_vllm(name: str) -> Callable[[Row], Value]:
    """A param that means nothing to a peer."""
    return lambda row: None if row.system.is_peer else row.system.param(name)


def _median(metric: str) -> Callable[[Row], Value]:
    return lambda row: row.system.median(metric)


def _limit(metric: str, side: Literal["low", "high"]) -> Callable[[Row], Value]:
    def limit(row: Row) -> Value:
        interval = row.rates.get(metric)
        return getattr(interval, side) if interval else None

    return limit


def _rate(metric: Metric) -> Callable[[Row], str]:
    """Median, of money in cents; of what boards are ranked by its 95 % interval where the noise is known."""
    shift = 2 if metric.unit.startswith("USD") else 0

    def show(row: Row) -> str:
        spread = row.system.spread(metric.name)
        if spread is None:
            return NOT_MEASURED
        median, interval = f"{spread.median * 10**shift:,.{metric.digits - shift}f}", row.rates.get(metric.name)
        if interval is None or metric.name != "reqs_per_sec":
            return median
        low, high = (f"{value:,.{2 if value < 100 else 1}f}" for value in (interval.low, interval.high))
        return f"{median} ({low}–{high})"

    return show


def _rank(row: Row) -> str:
    return NOT_MEASURED if row.rank is None else f"{row.rank}{' =' if row.tied else ''}"


def _wer(row: Row) -> str:
    wer, interval = row.system.wer, row.system.interval
    if wer is None:
        return NOT_MEASURED
    return f"{wer:.2f} ({interval.low:.2f}–{interval.high:.2f})" if interval else f"{wer:.2f}"


def _against_the_best(row: Row) -> str:
    if row.no_test:
        return f"not tested: {row.no_test}"
    if row.most_accurate:
        return "best"
    if row.test:
        return f"{row.test.difference:+.2f} (p = {row.test.p_value:.3f})"
    return "intervals far apart" if row.system.wer is not None else NOT_MEASURED


def _interval(row: Row, side: Literal["low", "high"]) -> Value:
    interval = row.system.interval
    return getattr(interval, side) if interval else None


def _of_metric(metric: Metric, heading: str) -> Iterator[Column]:
    """The median over repeats; of the rate that boards are ranked by also the limits, in files."""
    shown: Shown = "always" if metric.rate else "where known"
    yield Column(metric.name, heading, _median(metric.name), _rate(metric), shown=shown, numeric=True)
    if metric.name == "reqs_per_sec":
        yield Column(f"{metric.name}_low", f"{heading} from", _limit(metric.name, "low"), shown="in files")
        yield Column(f"{metric.name}_high", f"{heading} to", _limit(metric.name, "high"), shown="in files")


_FIGURES = [column for metric in METRICS if metric.heading for column in _of_metric(metric, metric.heading)]
_FIRST_FIGURES = [
    column for column in _FIGURES if column.name in ("reqs_per_sec", "reqs_per_sec_low", "reqs_per_sec_high")
]

COLUMNS = (
    Column("rank", "rank", lambda row: row.rank, _rank, shown="where known", numeric=True),
    Column("tied", "tied", lambda row: row.tied, shown="in files"),
    Column("model", "model", lambda row: row.system.model),
    Column("model_id", "model id", lambda row: row.system.model_id, shown="to tell rows apart"),
    Column(
        "model_revision",
        "revision",
        lambda row: row.system.revision,
        lambda row: (row.system.revision or NOT_MEASURED)[:8],
        shown="to tell rows apart",
    ),
    Column("wer", "WER %", lambda row: row.system.wer, _wer, shown="where known", numeric=True),
    Column("wer_ci_low", "WER from", lambda row: _interval(row, "low"), shown="in files"),
    Column("wer_ci_high", "WER to", lambda row: _interval(row, "high"), shown="in files"),
    *_FIRST_FIGURES,
    Column("cache_and_seqs", "kv/seqs", lambda row: row.system.batch),
    Column(
        "run_id",
        "run",
        lambda row: row.system.newest.run_id,
        lambda row: row.system.newest.run_id[:8],
        link=True,
    ),
    Column("padding_stride", "stride", lambda row: row.system.padding_stride, shown="where not 1", numeric=True),
    Column("engines", "engines", lambda row: row.system.engines, shown="where not 1", numeric=True),
    Column("gpu", "gpu", lambda row: row.system.gpu),
    Column("engine", "engine", lambda row: row.system.engine),
    Column(
        "weights", "weights", lambda row: "random" if row.system.newest.random_weights else "real", shown="in files"
    ),
    Column("kv_cache_dtype", "kv_cache_dtype", _of_vllm("kv_cache_dtype"), shown="in files"),
    Column("max_num_seqs", "max_num_seqs", _of_vllm("max_num_seqs"), shown="in files"),
    Column("batch_size", "batch_size", _param("batch_size_effective"), shown="in files"),
    Column("dtype", "dtype", lambda row: row.system.dtype, shown="where they differ"),
    Column("settings", "other settings", lambda row: row.system.settings, shown="where known"),
    Column("vllm_version", "vLLM", _param("vllm_version"), shown="in files"),
    Column(
        "wer_difference",
        "against the best",
        lambda row: row.test.difference if row.test else row.no_test or None,
        _against_the_best,
        shown="where known",
        numeric=True,
    ),
    Column("wer_p_value", "p", lambda row: row.test.p_value if row.test else None, shown="in files"),
    *(column for column in _FIGURES if column not in _FIRST_FIGURES),
    Column("pareto", "Pareto", lambda row: row.pareto, lambda row: "★" if row.pareto else "", shown="where known"),
    Column(
        "n",
        "n",
        lambda row: spread.n if (spread := row.system.spread("reqs_per_sec")) else len(row.system.runs),
        numeric=True,
    ),
    Column(
        "when",
        "when",
        lambda row: f"{row.system.newest.start_time:%Y-%m-%d %H:%M}",
        lambda row: f"{row.system.newest.start_time:%Y-%m-%d}",
    ),
    Column("who", "who", lambda row: ", ".join(row.system.users)),
    Column("notes", "notes", lambda row: "; ".join(row.system.warnings), shown="where known"),
    Column("config_digest", "digest", lambda row: row.system.newest.config_digest, shown="in files"),
)
