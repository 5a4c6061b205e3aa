"""What a comparison reports: a short answer, the leaderboards, and the sections after them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from whisperbench.compare.columns import COLUMNS, Column, shown_columns
from whisperbench.compare.difference import Clip
from whisperbench.compare.document import (
    NOT_MEASURED,
    Cell,
    Heading,
    Linked,
    Paragraph,
    Part,
    Section,
    Table,
    counted,
    linked,
    number,
)
from whisperbench.compare.groups import Group, LeftOut
from whisperbench.compare.published import Counterpart
from whisperbench.compare.rank import Leaderboard, Row, best_per_gpu_and_model
from whisperbench.compare.rescore import RankChange
from whisperbench.compare.systems import DEFAULT, System
from whisperbench.config.compare import SORTINGS
from whisperbench.results.keys import fields_of
from whisperbench.results.links import Links

MAX_ANSWERS = 6
"""Rows of the short answer, which has at most 12 lines on a terminal of 80 columns."""
MAX_NAMES = 4
BY_NAME = {column.name: column for column in COLUMNS}


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """The content of a leaderboard's files: leaderboards in order, the main one first.

    `alone` are groups of one configuration.  `rank_changes` is None without rescoring.  `clips` are the utterances with
    the most errors of the main leaderboard's first row.
    """

    boards: tuple[Leaderboard, ...]
    alone: tuple[Leaderboard, ...]
    left_out: tuple[LeftOut, ...]
    published: tuple[Counterpart, ...]
    rank_changes: tuple[RankChange, ...] | None
    clips: tuple[Clip, ...]
    links: Links
    searched: str

    @property
    def summary(self) -> str:
        runs, alone = (sum(len(r.system.runs) for b in boards for r in b.rows) for boards in (self.boards, self.alone))
        beside = f", {alone} without a counterpart" if alone else ""
        return f"{counted(runs, 'run')} compared{beside}, {len(self.left_out)} left out. Searched: {self.searched}."

    @property
    def answer(self) -> list[Part]:
        """One row per model and GPU with its best setting, at most 12 lines on a terminal of 80 columns."""
        table, hidden = best(self.boards[0], self.links)
        more = f"{counted(hidden, 'more row')} in leaderboard.html. " if hidden else ""
        heading = Heading([f"Whisper leaderboard: {data(self.boards[0].group)}"], 1)
        return [heading, table, Paragraph(more + self.summary)]

    @property
    def parts(self) -> list[Part]:
        """The short answer, the most accurate systems, one table per leaderboard, and the other sections."""
        accurate = most_accurate(self.boards[0])
        parts = [*self.answer, *([Paragraph(accurate, "Most accurate")] if accurate else [])]
        for board in self.boards:
            parts += [Heading([title(board)]), ranking(board, self.links), Paragraph(explanation(board))]
        return [*parts, *(part for section in self.sections for part in section.parts)]

    @property
    def sections(self) -> list[Section]:
        """What follows the leaderboards; a section without content is left out."""
        found = [
            Section("GPU and engine comparison", gpu_and_engine_comparison(self.boards)),
            Section("One configuration on different data, WER %", _across_data((*self.boards, *self.alone))),
            Section("Configurations without a counterpart", _alone(self)),
            Section("Published benchmarks, not ranked", _published(self.published), note=_caveats(self.published)),
            Section("Left out", _left_out(self)),
        ]
        if self.rank_changes is not None:
            changes = Section("Changes by rescoring", _rank_changes(self.rank_changes), "No rank changes.")
            found.insert(3, changes)
        return [section for section in found if section.table.rows or section.without_rows]


def title(board: Leaderboard) -> str:
    """`Librispeech test-clean, 2,620 utterances, ranked by WER`."""
    how = f"ranked by {SORTINGS[board.sort].heading}" if len(board.rows) > 1 else "one configuration"
    text = f"{data(board.group)}, {how}"
    return text[:1].upper() + text[1:]


def data(group: Group) -> str:
    """`librispeech test-clean, 2,620 utterances`."""
    count = group.newest.metric("utterances")
    parts = [group.data, *([] if count is None else [counted(round(count), "utterance")])]
    return ", ".join([*parts, *(["random weights"] if group.newest.random_weights else [])])


def best(board: Leaderboard, links: Links) -> tuple[Table, int]:
    """The best setting of each GPU and model, best first, and how many rows were left out."""
    found = best_per_gpu_and_model(board) or list(board.rows)
    figures = ("wer", "reqs_per_sec", "rtfx", "usd_per_audio_hour", SORTINGS[board.sort].metric)
    names = dict.fromkeys(("model", "gpu", "setting", *figures))
    short = {
        "gpu": Column("gpu", "gpu", lambda row: row.system.short_gpu),
        "setting": Column("setting", "setting", lambda row: row.system.description),
        "rtfx": Column("rtfx", "RTFx", lambda row: number(row.system.median("rtfx"), 0), numeric=True),
        "usd_per_audio_hour": dataclasses.replace(BY_NAME["usd_per_audio_hour"], heading="¢/hour"),
    }
    columns = [short.get(name) or BY_NAME[name] for name in names]
    columns = [column for column in columns if column.is_shown(board.rows)]
    return _table(columns, found[:MAX_ANSWERS], links), len(found[MAX_ANSWERS:])


def ranking(board: Leaderboard, links: Links) -> Table:
    return _table(shown_columns(board), board.rows, links)


def cell(column: Column, row: Row, links: Links) -> Cell:
    text = column.text(row)
    return Linked(text, links.run(row.system.newest)) if column.link else text


def explanation(board: Leaderboard) -> str:
    """How to read a leaderboard."""
    sentences = [f"Not comparable with the first table: {'; '.join(board.differs)}."] if board.differs else []
    if len(board.rows) > 1 and board.sort == "wer":
        sentences.append(
            "“=” marks a tie: the same WER, or not significantly worse than the best. The test covers the whole table: "
            "paired, the speakers of all systems resampled together, p adjusted for the largest studentised difference "
            "of any pair, p ≥ 0.05."
        )
    elif len(board.rows) > 1:
        sentences.append(
            "Ranks are per GPU. “=” marks a tie: not significantly worse than the first of that rank, p ≥ 0.05 for all "
            "rows of the GPU together (medians, in units of the noise of repeats, against simulated equal systems)."
        )
        metric = SORTINGS[board.sort].metric
        unranked = [r.system.gpu for r in board.rows if r.rank is None and r.system.median(metric) is not None]
        if len(unranked) > 1:
            gpus = ", ".join(dict.fromkeys(unranked))
            sentences.append(f"No ranks on {gpus}: no configuration was repeated there (repeats=3).")
        if len({fields_of(row.system.speed_key).get("schema") for row in board.rows}) > 1:
            sentences.append("Runs with another timed region (schema) are ranked separately.")
    sentences.append(
        "Intervals are 95 % intervals. Rates are medians of n repeats, with the noise of all repeats on that GPU."
    )
    if any(row.pareto for row in board.rows):
        sentences.append("★ is Pareto-optimal: no other configuration on that GPU is both faster and more accurate.")
    return " ".join(sentences)


def most_accurate(board: Leaderboard) -> str:
    """The system with the lowest WER, and those that are not significantly worse; empty with one system or no WER."""
    first = next((row for row in board.rows if row.most_accurate), None)
    if first is None:
        return ""
    ties = [on_gpu(row) for row in board.rows if row is not first and row.as_accurate_as_the_best]
    more = f" and {len(ties) - MAX_NAMES} more" if len(ties) > MAX_NAMES else ""
    tied = f"; not significantly worse: {', '.join(ties[:MAX_NAMES])}{more}" if ties else ""
    return f"{on_gpu(first)}, WER {number(first.system.wer)} %{tied}."


def on_gpu(row: Row) -> str:
    """`large-v3 fp8 seqs256 on NVIDIA H100 80GB HBM3`."""
    return f"{row.system.label} on {row.system.gpu}"


BATCH = ("kv_cache_dtype", "max_num_seqs")
"""Options of vLLM that correspond to the batch size of other engines."""


def gpu_and_engine_comparison(boards: Iterable[Leaderboard]) -> Table:
    """Systems of one model with equal settings on several GPUs or engines, the fastest of each group first.

    An engine other than vLLM has no KV cache type and no maximum number of sequences, so its fastest batch size is
    compared with the fastest setting of vLLM that is otherwise equal.
    """
    rows: list[list[Cell]] = []
    for board in boards:
        timed = [row.system for row in board.rows if row.system.median("reqs_per_sec")]
        timed.sort(key=lambda system: (not system.uses_vllm, -(system.median("reqs_per_sec") or 0)))
        vllm_batch: dict[tuple[object, ...], tuple[object, ...]] = {}
        groups: dict[tuple[object, ...], dict[tuple[str, str], System]] = {}
        for system in timed:
            rest = system.settings("engine", *BATCH, "batch_size")
            equal = (system.model, system.newest.random_weights, system.param("dtype"), rest)
            batch = vllm_batch.get(equal, ())
            if system.uses_vllm:
                batch = tuple(system.param(name) for name in BATCH)
                vllm_batch.setdefault(equal, batch)
            groups.setdefault((*equal, *batch), {}).setdefault((system.gpu, system.engine), system)
        for group in groups.values():
            ordered = sorted(group.values(), key=lambda system: -(system.median("reqs_per_sec") or 0))
            top = ordered[0].median("reqs_per_sec") or 1
            for system in ordered if len(ordered) > 1 else ():
                rate = system.median("reqs_per_sec") or 0
                setting = system.settings("engine") or DEFAULT
                figures = [
                    number(system.wer),
                    number(rate),
                    f"{100 * rate / top:.0f} %",
                    number(system.median("rtfx"), 1),
                ]
                rows.append([system.model, system.gpu, system.engine, setting, *figures])
    headings = ["model", "gpu", "engine", "setting", "WER %", "reqs/sec", "% of fastest", "RTFx"]
    return Table(headings, rows, frozenset({4, 5, 6, 7}))


def _table(columns: Sequence[Column], rows: Iterable[Row], links: Links) -> Table:
    cells = [[cell(column, row, links) for column in columns] for row in rows]
    numeric = frozenset(place for place, column in enumerate(columns) if column.numeric)
    return Table([column.heading for column in columns], cells, numeric)


def _published(published: Sequence[Counterpart]) -> Table:
    headings = ["benchmark", "model", "gpu", "engine", "WER %", "reqs/sec per GPU", "RTFx per GPU"]
    headings += [
        "measured here",
        "WER %",
        "reqs/sec per GPU",
        "RTFx per GPU",
        "measured/published",
        "caveats",
        "source",
    ]
    rows: list[list[Cell]] = []
    for each in published:
        p, s = each.published, each.system
        theirs = [p.benchmark, p.model, p.gpu, p.setting, number(p.wer)]
        theirs += [_per_gpu(p.reqs_per_sec, p.gpus), _per_gpu(p.rtfx, p.gpus)]
        ours = [NOT_MEASURED] * 4
        if s is not None:
            rates = [_per_gpu(s.median(metric), s.gpu_count) for metric in ("reqs_per_sec", "rtfx")]
            ours = [f"{s.label} on {s.gpu}", number(s.wer), *rates]
        source = Linked(f"{p.source}, {p.date}" if p.date else p.source, p.url)
        rows.append([*theirs, *ours, number(each.ratio), each.caveats, source])
    return Table(headings, rows, frozenset({4, 5, 6, 8, 9, 10, 11}))


def _caveats(published: Sequence[Counterpart]) -> str:
    """What each benchmark measured, once per benchmark."""
    found = dict.fromkeys((each.published.benchmark, each.published.caveats) for each in published)
    return " ".join(f"{benchmark}: {caveats}" for benchmark, caveats in found)


def _per_gpu(rate: float | None, gpus: int) -> str:
    return NOT_MEASURED if rate is None else number(rate / gpus)


def _across_data(boards: Iterable[Leaderboard]) -> Table:
    """The WER of a configuration on each of several data sets; no rows if none was measured on two."""
    largest: dict[str, Group] = {}
    for group in sorted((board.group for board in boards), key=lambda group: group.size):
        if group.has("wer"):
            largest[group.data] = group
    names = sorted(largest)
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name in names:
        for system in largest[name].systems:
            found.setdefault((system.label, system.gpu), {})[name] = number(system.wer)
    rows = [
        [*place, *(wers.get(name, NOT_MEASURED) for name in names)]
        for place, wers in sorted(found.items())
        if len(wers) > 1
    ]
    headings = ["configuration", "gpu", *(data(largest[name]) for name in names)]
    return Table(headings, rows, frozenset(range(2, len(headings))))


def _alone(report: Report) -> Table:
    rows: list[list[Cell]] = []
    for board in report.alone:
        for system in board.group.systems:
            figures = [number(system.wer), number(system.median("reqs_per_sec"))]
            name = Linked(system.label, report.links.run(system.newest))
            rows.append([name, data(board.group), system.gpu, *figures, "; ".join(board.differs)])
    headings = ["configuration", "data", "gpu", "WER %", "reqs/sec", "differs from the first table"]
    return Table(headings, rows, frozenset({3, 4}))


def _left_out(report: Report) -> Table:
    rows: list[list[Cell]] = []
    for each in report.left_out:
        figures = [number(each.run.metric(name)) for name in ("wer", "reqs_per_sec")]
        rows.append([linked(each.run, report.links), each.run.gpu, *figures, each.reason])
    return Table(["run", "gpu", "WER %", "reqs/sec", "reason"], rows, frozenset({2, 3}))


def _rank_changes(changes: Iterable[RankChange]) -> Table:
    rows = [
        [c.label, c.gpu, " → ".join(number(wer) for wer in c.wer), " → ".join(number(rank, 0) for rank in c.rank)]
        for c in changes
    ]
    return Table(["configuration", "gpu", "WER %", "rank"], rows, frozenset({2, 3}))
