"""What a leaderboard says, as sections of plain text and tables: markdown and HTML are two renderings of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from whisperbench.compare.columns import Column, shown_columns
from whisperbench.compare.frames import frame_sections
from whisperbench.compare.groups import LeftOut
from whisperbench.compare.leaderboard import Board, Row, best_per_gpu_and_model
from whisperbench.compare.published import SOURCE, UTTERANCES, Counterpart
from whisperbench.compare.questions import engine_sections
from whisperbench.compare.rescoring import RankChange
from whisperbench.compare.tables import NOT_MEASURED, Cell, Linked, Section, Table, linked, number
from whisperbench.options import SORTINGS
from whisperbench.results.keys import fields_of
from whisperbench.results.links import Links

MOST_NAMES = 6


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """Everything that a leaderboard's files are made from; boards in order, the main one first.

    `rank_changes` is None where nothing was rescored.
    """

    boards: tuple[Board, ...]
    left_out: tuple[LeftOut, ...]
    published: tuple[Counterpart, ...]
    rank_changes: tuple[RankChange, ...] | None
    links: Links
    searched: str

    @property
    def summary(self) -> str:
        runs = sum(len(row.system.runs) for board in self.boards for row in board.rows)
        return f"{runs} runs ranked, {len(self.left_out)} left out. Searched: {self.searched}."

    @property
    def after_the_boards(self) -> list[Section]:
        """What rescoring changes, published results, and what was left out; nothing of what there is not."""
        found = engine_sections([row.system for row in board.rows] for board in self.boards)
        if self.rank_changes is not None:
            found.append(Section("What rescoring changes", _rank_changes(self), without_rows="No rank changes."))
        if self.published:
            if (settings := _published_settings(self)).rows:
                found.append(Section("Published settings, GPU by GPU, reqs/sec", settings))
            found.append(Section("Published results, not ranked", _published(self), note=f"Source: {SOURCE}."))
            found += frame_sections(row.system for board in self.boards for row in board.rows)
        if self.left_out:
            found.append(Section("Left out", _left_out(self)))
        return found


def title(board: Board) -> str:
    """`Librispeech test-clean, 2,620 utterances, ranked by WER`."""
    count = board.group.newest.metric("utterances")
    parts = [board.group.data, *([] if count is None else [f"{count:,.0f} utterances"])]
    parts += ["random weights"] if board.group.newest.random_weights else []
    text = ", ".join([*parts, f"ranked by {SORTINGS[board.sort].heading}"])
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
        keys = {row.system.speed_key: fields_of(row.system.speed_key) for row in board.rows}
        if len({fields.get("schema") for fields in keys.values()}) > 1:
            said.append("Runs whose clock covers something else (schema) are ranked apart.")
    if board.group.has("reqs_per_sec"):
        said.append("Rates are medians, with the range of the repeats; n counts the repeats.")
    if any(row.pareto for row in board.rows):
        said.append("★ is Pareto-optimal: nothing on that GPU is both faster and more accurate.")
    return " ".join(said)


def best(board: Board) -> Table:
    """The short answer: the fastest system of each GPU and model."""
    found = [row.system for row in best_per_gpu_and_model(board)]
    rows = [
        [c.gpu, c.model, c.label.removeprefix(f"{c.model} "), number(c.median("reqs_per_sec")), number(c.wer)]
        for c in found
    ]
    return Table(["gpu", "model", "fastest settings (kv/seqs)", "reqs/sec", "WER %"], rows, frozenset({3, 4}))


def findings(board: Board) -> list[tuple[str, str]]:
    """The most accurate system with those that tie, and the Pareto-optimal ones: subject and text."""
    said = []
    if first := next((row for row in board.rows if row.most_accurate), None):
        ties = [row for row in board.rows if row.as_accurate_as_the_best and row is not first]
        tied = f"; not significantly worse: {_names([_on_gpu(row) for row in ties])}" if ties else ""
        said.append(("Most accurate", f"{_on_gpu(first)}, WER {number(first.system.wer)} %{tied}."))
    for gpu in dict.fromkeys(row.system.gpu for row in board.rows if row.pareto):
        optimal = [row.system for row in board.rows if row.pareto and row.system.gpu == gpu]
        optimal.sort(key=lambda c: -(c.median("reqs_per_sec") or 0))
        names = [f"{c.label} ({number(c.wer)}, {number(c.median('reqs_per_sec'))})" for c in optimal]
        said.append((f"Pareto-optimal on {gpu} (WER %, reqs/sec)", f"{_names(names)}."))
    return said


def ranking(board: Board, links: Links) -> Table:
    """The rows of a board with the columns that say something about them."""
    columns = shown_columns(board)
    rows = [[cell(column, row, links) for column in columns] for row in board.rows]
    numeric = frozenset(place for place, column in enumerate(columns) if column.numeric)
    return Table([column.heading for column in columns], rows, numeric)


def cell(column: Column, row: Row, links: Links) -> Cell:
    """A cell of a board as people read it."""
    text = column.text(row)
    return Linked(text, links.run(row.system.newest)) if column.link else text


def _published(report: Report) -> Table:
    headings = ["rank", "gpu", "model", "kv/seqs", "WER %", "reqs/sec"]
    headings += ["measured here", "WER %", "reqs/sec", "measured/published", "mind"]
    rows = []
    for each in report.published:
        p, c = each.published, each.system
        theirs = ["published", p.gpu, *p.settings, number(p.wer)]
        ours = [c.label, number(c.wer), number(each.measured_reqs_per_sec)] if c else [NOT_MEASURED] * 3
        rows.append([*theirs, number(p.reqs_per_sec), *ours, number(each.ratio), ", ".join(each.caveats)])
    return Table(headings, rows, frozenset({4, 5, 7, 8, 9}))


def _published_settings(report: Report) -> Table:
    """The best throughput with the published settings, GPU by GPU; no rows where none was measured on the whole test
    set."""
    theirs = [each.published for each in report.published]
    measured: dict[tuple[str, tuple[str, str]], float] = {}
    for c in (row.system for board in report.boards for row in board.rows):
        rate = c.median("reqs_per_sec")
        if rate is None or c.newest.metric("utterances") != UTTERANCES:
            continue
        for p in theirs:
            if p.has_model_of(c) and p.has_settings_of(c):
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


def _left_out(report: Report) -> Table:
    rows: list[list[Cell]] = []
    for each in report.left_out:
        figures = [number(each.run.metric(name)) for name in ("wer", "reqs_per_sec")]
        rows.append([linked(each.run, report.links), each.run.gpu, *figures, each.reason])
    return Table(["run", "gpu", "WER %", "reqs/sec", "why"], rows, frozenset({2, 3}))


def _rank_changes(report: Report) -> Table:
    rows = [
        [c.label, c.gpu, " → ".join(number(wer) for wer in c.wer), " → ".join(number(rank, 0) for rank in c.rank)]
        for c in report.rank_changes or ()
    ]
    return Table(["configuration", "gpu", "WER %", "rank"], rows, frozenset({2, 3}))


def _on_gpu(row: Row) -> str:
    return f"{row.system.label} on {row.system.gpu}"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
