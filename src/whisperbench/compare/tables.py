"""What a comparison says, as tables and sentences of plain text: markdown and HTML are two renderings of these."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from whisperbench.compare.columns import NOT_MEASURED, Links
from whisperbench.compare.difference import Difference
from whisperbench.compare.leaderboard import Board, LeftOut, Row, best_per_gpu_and_model
from whisperbench.compare.published import UTTERANCES, Beside
from whisperbench.compare.rescoring import RankChange
from whisperbench.measure.bootstrap import PairedTest
from whisperbench.results.keys import fields_of
from whisperbench.results.run_record import RunRecord

MOST_NAMES = 6
SORTED_BY = {
    "wer": "WER", "reqs_per_sec": "reqs/sec", "rtfx": "RTFx", "energy": "energy per audio hour",
    "cost": "cost per audio hour",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Linked:
    """A cell that leads somewhere."""

    text: str
    address: str


Cell = str | Linked


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """Headings, rows of text, and the places of the columns that hold numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """Everything that a leaderboard's files are made from; boards in order, the main one first.

    `rank_changes` is None where nothing was rescored.
    """

    boards: tuple[Board, ...]
    left_out: tuple[LeftOut, ...]
    beside: tuple[Beside, ...]
    rank_changes: tuple[RankChange, ...] | None
    links: Links
    searched: str

    @property
    def summary(self) -> str:
        runs = sum(len(row.configuration.runs) for board in self.boards for row in board.rows)
        return f"{runs} runs ranked, {len(self.left_out)} left out. Searched: {self.searched}."


def title(board: Board) -> str:
    """`Librispeech test-clean, 2,620 utterances, ranked by WER`."""
    count = board.group.newest.metric("utterances")
    parts = [board.group.data, *([] if count is None else [f"{count:,.0f} utterances"])]
    parts += ["random weights"] if board.group.newest.random_weights else []
    text = ", ".join([*parts, f"ranked by {SORTED_BY[board.sort]}"])
    return text[:1].upper() + text[1:]


def explanation(board: Board) -> str:
    """How to read a board, in sentences."""
    said = []
    if board.differs:
        said.append(f"Not comparable with the first table: {'; '.join(board.differs)}.")
    if board.sort == "wer":
        said.append(
            "WER with its 95 % interval. “=” marks a tie: not significantly worse than the best (paired bootstrap "
            "over speakers, p ≥ 0.05)."
        )
    else:
        said.append("Ranks are per GPU. “=” marks a tie: the ranges of the repeats overlap.")
        keys = {row.configuration.speed_key: fields_of(row.configuration.speed_key) for row in board.rows}
        if len({fields.get("schema") for fields in keys.values()}) > 1:
            said.append("Runs whose clock covers something else (schema) are ranked apart.")
    if board.group.has("reqs_per_sec"):
        said.append("Rates are medians, with the range of the repeats; n counts the repeats.")
    if any(row.pareto for row in board.rows):
        said.append("★ is Pareto-optimal: nothing on that GPU is both faster and more accurate.")
    return " ".join(said)


def best(board: Board) -> Table:
    """The short answer: the fastest configuration of each GPU and model."""
    found = [row.configuration for row in best_per_gpu_and_model(board)]
    rows = [
        [c.gpu, c.model, c.label.removeprefix(f"{c.model} "), number(c.median("reqs_per_sec")), number(c.wer)]
        for c in found
    ]
    return Table(["gpu", "model", "fastest settings (kv/seqs)", "reqs/sec", "WER %"], rows, frozenset({3, 4}))


def findings(board: Board) -> list[tuple[str, str]]:
    """The most accurate configuration with those that tie, and the Pareto-optimal ones: subject and text."""
    said = []
    if first := next((row for row in board.rows if row.most_accurate), None):
        ties = [row for row in board.rows if row.as_accurate_as_the_best and row is not first]
        tied = f"; not significantly worse: {_names([_on_gpu(row) for row in ties])}" if ties else ""
        said.append(("Most accurate", f"{_on_gpu(first)}, WER {number(first.configuration.wer)} %{tied}."))
    for gpu in dict.fromkeys(row.configuration.gpu for row in board.rows if row.pareto):
        optimal = [row.configuration for row in board.rows if row.pareto and row.configuration.gpu == gpu]
        optimal.sort(key=lambda c: -(c.median("reqs_per_sec") or 0))
        names = [f"{c.label} ({number(c.wer)}, {number(c.median('reqs_per_sec'))})" for c in optimal]
        said.append((f"Pareto-optimal on {gpu} (WER %, reqs/sec)", f"{_names(names)}."))
    return said


def published(found: Iterable[Beside]) -> Table:
    headings = ["rank", "gpu", "model", "kv/seqs", "WER %", "reqs/sec"]
    headings += ["measured here", "WER %", "reqs/sec", "measured/published", "mind"]
    rows = []
    for each in found:
        p, c = each.published, each.configuration
        theirs = ["published", p.gpu, *p.settings, number(p.wer)]
        ours = [c.label, number(c.wer), number(each.measured_reqs_per_sec)] if c else [NOT_MEASURED] * 3
        rows.append([*theirs, number(p.reqs_per_sec), *ours, number(each.ratio), ", ".join(each.caveats)])
    return Table(headings, rows, frozenset({4, 5, 7, 8, 9}))


def published_settings(report: Report) -> Table:
    """The best throughput with the published settings, GPU by GPU; no rows where none was measured on the whole test
    set."""
    theirs = [each.published for each in report.beside]
    measured: dict[tuple[str, tuple[str, str]], float] = {}
    for c in (row.configuration for board in report.boards for row in board.rows):
        rate = c.median("reqs_per_sec")
        if rate is None or c.newest.metric("utterances") != UTTERANCES:
            continue
        for p in theirs:
            if p.is_of_the_model_of(c) and p.has_settings_of(c):
                measured[c.gpu, p.settings] = max(rate, measured.get((c.gpu, p.settings), 0.0))
    if not measured:
        return Table([], [])
    fastest_first = sorted(measured.items(), key=lambda item: -item[1])
    ours, gpus = dict.fromkeys(gpu for (gpu, _), _ in fastest_first), dict.fromkeys(p.gpu for p in theirs)
    published = {(p.gpu, p.settings): p.reqs_per_sec for p in theirs}
    rows = [
        [
            *settings,
            *(number(published.get((gpu, settings))) for gpu in gpus),
            *(number(measured.get((gpu, settings))) for gpu in ours),
        ]
        for settings in dict.fromkeys(p.settings for p in theirs)
    ]
    headings = ["model", "kv/seqs", *(f"{gpu}, published" for gpu in gpus), *(f"{gpu}, measured" for gpu in ours)]
    return Table(headings, rows, frozenset(range(2, len(headings))))


def left_out(found: Iterable[LeftOut], links: Links) -> Table:
    rows: list[list[Cell]] = []
    for each in found:
        figures = [number(each.run.metric(name)) for name in ("wer", "reqs_per_sec")]
        rows.append([_linked(each.run, links), each.run.gpu, *figures, each.reason])
    return Table(["run", "gpu", "WER %", "reqs/sec", "why"], rows, frozenset({2, 3}))


def rank_changes(changes: Iterable[RankChange]) -> Table:
    rows = [
        [c.label, c.gpu, " → ".join(number(wer) for wer in c.wer), " → ".join(number(rank, 0) for rank in c.rank)]
        for c in changes
    ]
    return Table(["configuration", "gpu", "WER %", "rank"], rows, frozenset({2, 3}))


def compared(found: Difference, links: Links) -> tuple[Linked, Linked]:
    return _linked(found.a, links), _linked(found.b, links)


def side_by_side(runs: Sequence[RunRecord], links: Links) -> Linked:
    return Linked("Transcripts side by side in MLflow", links.transcripts(runs))


def warning(found: Difference) -> str:
    """What may not be compared, and that a table of the reasons follows."""
    what = "The rates may not" if found.wer_is_comparable else "Neither WER nor rates may"
    return f"{what} be compared: these fields differ."


def incomparable_fields(found: Difference) -> Table:
    return Table(["field", "from", "to"], [[name, *pair] for name, pair in found.not_comparable.items()])


def params(found: Difference) -> Table:
    return Table(["param", "from", "to"], [[name, *pair] for name, pair in found.params.items()])


def metrics(found: Difference) -> Table:
    rows = [[m.name, _precise(m.a), _precise(m.b), _signed(m.percent)] for m in found.metrics]
    return Table(["metric", "from", "to", "change"], rows, frozenset({1, 2, 3}))


def outcome(test: PairedTest | str) -> str:
    """The outcome of a paired test in one sentence."""
    if isinstance(test, str):
        return f"WER: no paired test, {test}."
    verdict = "a significant change" if test.significant else "no significant change"
    limits = f", 95 % interval {test.low:+.2f} to {test.high:+.2f}" if math.isfinite(test.low) else ""
    return f"WER: {verdict}, {test.difference:+.2f} points{limits}, p = {test.p_value:.3f}."


def number(value: float | None, digits: int = 2) -> str:
    return NOT_MEASURED if value is None else f"{value:,.{digits}f}"


def _precise(value: float | None) -> str:
    return number(value, 2 if value is None or abs(value) >= 1 or value == 0 else 4)


def _signed(percent: float | None) -> str:
    return NOT_MEASURED if percent is None else f"{percent:+.1f} %"


def _linked(run: RunRecord, links: Links) -> Linked:
    return Linked(f"{run.name} {run.run_id[:8]}", links.run(run))


def _on_gpu(row: Row) -> str:
    return f"{row.configuration.label} on {row.configuration.gpu}"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
