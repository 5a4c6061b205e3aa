"""Content of a comparison: a short answer, the leaderboards, and the sections after them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from whisperbench.compare.columns import COLUMNS, Column, shown_columns
from whisperbench.compare.difference import AlignedUtterance
from whisperbench.compare.document import (
    NOT_MEASURED,
    Cell,
    Heading,
    Linked,
    Paragraph,
    Part,
    Table,
    counted,
    linked,
    number,
    section,
)
from whisperbench.compare.groups import Group, LeftOut
from whisperbench.compare.published import Counterpart
from whisperbench.compare.rank import Leaderboard, Row, best_per_gpu_and_model, significantly_worse
from whisperbench.compare.rescore import RankChange
from whisperbench.compare.systems import DEFAULT, System
from whisperbench.config.benchmark import OPTIONS
from whisperbench.config.compare import SORTINGS
from whisperbench.results.keys import fields_of
from whisperbench.results.links import Links

MAX_ANSWER_ROWS = 6
"""Maximum number of rows of the short answer, so that it has at most 12 lines on a terminal of 80 columns."""
MAX_TIES = 4
BATCH = ("kv_cache_dtype", "max_num_seqs")
"""Options of vLLM that correspond to the batch size of other engines."""

TIES_IN_WER = (
    "“=” marks a tie: the WER is equal to the best one, or not significantly worse (p ≥ 0.05). The test is paired: the "
    "speakers of all systems are resampled together, and p is adjusted for the largest studentised difference of any "
    "pair of the table."
)
TIES_IN_A_RATE = (
    "Ranks are per GPU. “=” marks a tie: the rate is not significantly worse than the first one of that rank (p ≥ 0.05 "
    "for all rows of the GPU together). The test compares the difference of medians, in units of the noise of repeats, "
    "with simulated equal systems."
)
INTERVALS = "Intervals are 95 % intervals. Rates are medians of n repeats; all repeats on a GPU determine the noise."
PARETO = "★ is Pareto-optimal: no other configuration on that GPU is both faster and more accurate."

BY_NAME = {column.name: column for column in COLUMNS}
ANSWER_COLUMNS = {
    "model": BY_NAME["model"],
    "gpu": Column("gpu", "gpu", lambda row: row.system.short_gpu),
    "setting": Column("setting", "setting", lambda row: row.system.description),
    "wer": BY_NAME["wer"],
    "reqs_per_sec": BY_NAME["reqs_per_sec"],
    "rtfx": Column("rtfx", "RTFx", lambda row: number(row.system.median("rtfx"), 0), numeric=True),
    "usd_per_audio_hour": dataclasses.replace(BY_NAME["usd_per_audio_hour"], heading="¢/hour"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """The content of the files of a comparison: leaderboards in order, the main one first.

    `alone` are groups of one configuration.  `rank_changes` is None without rescoring.  `utterances` are those with the
    most errors in the first row of the main leaderboard, and `audio` holds the data: URLs of their audio by utterance
    id.  `searched` describes where the runs were found.
    """

    boards: tuple[Leaderboard, ...]
    alone: tuple[Leaderboard, ...]
    left_out: tuple[LeftOut, ...]
    published: tuple[Counterpart, ...]
    rank_changes: tuple[RankChange, ...] | None
    utterances: tuple[AlignedUtterance, ...]
    audio: Mapping[str, str]
    links: Links
    searched: str

    @property
    def summary(self) -> str:
        runs, alone = (sum(len(r.system.runs) for b in boards for r in b.rows) for boards in (self.boards, self.alone))
        without = f", {alone} without a counterpart" if alone else ""
        return f"{counted(runs, 'run')} compared{without}, {len(self.left_out)} left out. Searched: {self.searched}."

    @property
    def answer(self) -> list[Part]:
        """The best setting of each model and GPU, in at most 12 lines on a terminal of 80 columns."""
        board = self.boards[0]
        rows = best_per_gpu_and_model(board) or board.rows
        metric = SORTINGS[board.sort].metric
        columns = {**ANSWER_COLUMNS, metric: ANSWER_COLUMNS.get(metric) or BY_NAME[metric]}.values()
        shown = [column for column in columns if column.is_shown(board.rows)]
        hidden = len(rows) - MAX_ANSWER_ROWS
        more = f"{counted(hidden, 'more row')} in leaderboard.html. " if hidden > 0 else ""
        heading = Heading([f"Whisper leaderboard: {data(board.group)}"], 1)
        return [heading, ranking(shown, rows[:MAX_ANSWER_ROWS], self.links), Paragraph(more + self.summary)]

    @property
    def parts(self) -> list[Part]:
        """The short answer, the most accurate systems, one table per leaderboard, and the other sections."""
        accurate = most_accurate(self.boards[0])
        parts = [*self.answer, *([Paragraph(accurate, "Most accurate")] if accurate else [])]
        for board in self.boards:
            table = ranking(shown_columns(board), board.rows, self.links)
            parts += [Heading([title(board)]), table, Paragraph(explanation(board))]
        return [*parts, *self.sections]

    @property
    def sections(self) -> list[Part]:
        """The sections after the leaderboards; sections without content are omitted."""
        unchanged = "" if self.rank_changes is None else "No rank changes."
        benchmarks = dict.fromkeys(f"{p.published.benchmark}: {p.published.caveats}" for p in self.published)
        return [
            *section("GPU and engine comparison", gpu_and_engine_comparison(self.boards)),
            *section("One configuration on different data, WER %", _across_data((*self.boards, *self.alone))),
            *section("Configurations without a counterpart", _alone(self.alone, self.links)),
            *section("Changes by rescoring", _rank_changes(self.rank_changes or ()), without_rows=unchanged),
            *section("Published benchmarks, not ranked", _published(self.published), note=" ".join(benchmarks)),
            *section("Left out", _left_out(self.left_out, self.links)),
        ]


def title(board: Leaderboard) -> str:
    """`Librispeech test-clean, 2,620 utterances, ranked by WER`."""
    how = f"ranked by {SORTINGS[board.sort].heading}" if len(board.rows) > 1 else "one configuration"
    found = f"{data(board.group)}, {how}"
    return found[:1].upper() + found[1:]


def data(group: Group) -> str:
    """`librispeech test-clean, 2,620 utterances`."""
    count = group.newest.metric("utterances")
    utterances = [] if count is None else [counted(round(count), "utterance")]
    return ", ".join([group.newest.data, *utterances, *["random weights"] * group.newest.random_weights])


def ranking(columns: Sequence[Column], rows: Iterable[Row], links: Links) -> Table:
    cells = [[cell(column, row, links) for column in columns] for row in rows]
    numeric = frozenset(i for i, column in enumerate(columns) if column.numeric)
    return Table([column.heading for column in columns], cells, numeric)


def cell(column: Column, row: Row, links: Links) -> Cell:
    text = column.text(row)
    return Linked(text, links.run(row.system.newest)) if column.link else text


def explanation(board: Leaderboard) -> str:
    """Sentences that explain the ranks and the figures of a leaderboard."""
    ranked = len(board.rows) > 1
    sentences = [f"It is not comparable with the first table: {'; '.join(board.differs)}."] if board.differs else []
    if ranked and board.sort == "wer":
        sentences.append(TIES_IN_WER)
    elif ranked:
        sentences.append(TIES_IN_A_RATE)
        metric = SORTINGS[board.sort].metric
        unranked = [r.system.gpu for r in board.rows if r.rank is None and r.system.median(metric) is not None]
        if len(unranked) > 1:
            gpus = ", ".join(dict.fromkeys(unranked))
            sentences.append(f"No ranks on {gpus}: no configuration was repeated there. Use repeats=3.")
        if len({fields_of(row.system.speed_key).get("schema") for row in board.rows}) > 1:
            sentences.append("Runs with different timed regions (schema) are ranked separately.")
    sentences.append(INTERVALS)
    if any(row.pareto for row in board.rows):
        sentences.append(PARETO)
    return " ".join(sentences)


def most_accurate(board: Leaderboard) -> str:
    """The system with the lowest WER and its ties; an empty string with one system or without a WER."""
    first = next((row for row in board.rows if row.most_accurate), None)
    if first is None:
        return ""
    others = [row for row in board.rows if row is not first]
    ties = [on_gpu(r) for r in others if r.most_accurate or (r.test and not significantly_worse(r.test))]
    more = f" and {len(ties) - MAX_TIES} more" if len(ties) > MAX_TIES else ""
    tied = f"; not significantly worse: {', '.join(ties[:MAX_TIES])}{more}" if ties else ""
    return f"{on_gpu(first)}, WER {number(first.system.wer)} %{tied}."


def on_gpu(row: Row) -> str:
    """`large-v3 fp8 seqs256 on NVIDIA H100 80GB HBM3`."""
    return f"{row.system.label} on {row.system.gpu}"


def gpu_and_engine_comparison(boards: Iterable[Leaderboard]) -> Table:
    """Systems of one model with equal settings on several GPUs or engines, the fastest of each group first."""
    rows: list[list[Cell]] = []
    for systems in (group for board in boards for group in _equal_settings(board) if len(group) > 1):
        rates = [system.median("reqs_per_sec") or 0 for system in systems]
        for system, rate in zip(systems, rates, strict=True):
            names = [system.model, system.gpu, system.engine, system.settings("engine") or DEFAULT]
            of_fastest, rtfx = f"{100 * rate / max(rates):.0f} %", number(system.median("rtfx"), 1)
            rows.append([*names, number(system.wer), number(rate), of_fastest, rtfx])
    headings = ["model", "gpu", "engine", "setting", "WER %", "reqs/sec", "% of fastest", "RTFx"]
    return Table(headings, rows, frozenset({4, 5, 6, 7}))


def _equal_settings(board: Leaderboard) -> list[list[System]]:
    """The fastest system of each GPU and engine, grouped by model and setting, the fastest first.

    Engines other than vLLM have neither kv_cache_dtype nor max_num_seqs, so their fastest batch size is compared with
    the fastest setting of vLLM whose other options are equal.
    """
    timed = [row.system for row in board.rows if row.system.median("reqs_per_sec")]
    timed.sort(key=lambda system: -(system.median("reqs_per_sec") or 0))
    settings = {
        s: (s.model, s.newest.random_weights, s.requested(OPTIONS["dtype"]), s.settings("engine", *BATCH, "batch_size"))
        for s in timed
    }
    batches = {s: tuple(s.param(name) for name in BATCH) for s in timed if s.uses_vllm}
    fastest = {settings[system]: batch for system, batch in reversed(batches.items())}
    groups: dict[tuple[object, ...], dict[tuple[str, str], System]] = {}
    for system in timed:
        batch = batches.get(system) or fastest.get(settings[system], ())
        groups.setdefault((settings[system], batch), {}).setdefault((system.gpu, system.engine), system)
    return [list(group.values()) for group in groups.values()]


def _published(published: Iterable[Counterpart]) -> Table:
    rows: list[list[Cell]] = []
    for each in published:
        p, s = each.published, each.system
        theirs = [number(p.wer), *(_per_gpu(rate, p.gpus) for rate in (p.reqs_per_sec, p.rtfx))]
        ours = [NOT_MEASURED] * 4
        if s is not None:
            rates = [_per_gpu(s.median(metric), s.gpu_count) for metric in ("reqs_per_sec", "rtfx")]
            ours = [f"{s.label} on {s.gpu}", number(s.wer), *rates]
        source = Linked(f"{p.source}, {p.date}" if p.date else p.source, p.url)
        rows.append([p.benchmark, p.model, p.gpu, p.setting, *theirs, *ours, number(each.ratio), each.caveats, source])
    figures = ["WER %", "reqs/sec per GPU", "RTFx per GPU"]
    headings = ["benchmark", "model", "gpu", "engine", *figures, "measured here", *figures]
    return Table([*headings, "measured/published", "caveats", "source"], rows, frozenset({4, 5, 6, 8, 9, 10, 11}))


def _per_gpu(rate: float | None, gpus: int) -> str:
    return NOT_MEASURED if rate is None else number(rate / gpus)


def _across_data(boards: Iterable[Leaderboard]) -> Table:
    """The WER of each configuration that was measured on several data sets; of equal names, the largest data set."""
    groups = sorted((board.group for board in boards if board.group.has("wer")), key=lambda group: group.size)
    largest = {group.newest.data: group for group in groups}
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


def _alone(boards: Iterable[Leaderboard], links: Links) -> Table:
    rows: list[list[Cell]] = []
    for board in boards:
        (system,) = board.group.systems
        name, rate = Linked(system.label, links.run(system.newest)), number(system.median("reqs_per_sec"))
        rows.append([name, data(board.group), system.gpu, number(system.wer), rate, "; ".join(board.differs)])
    headings = ["configuration", "data", "gpu", "WER %", "reqs/sec", "differs from the first table"]
    return Table(headings, rows, frozenset({3, 4}))


def _left_out(runs: Iterable[LeftOut], links: Links) -> Table:
    rows: list[list[Cell]] = []
    for each in runs:
        wer, rate = (number(each.run.metric(name)) for name in ("wer", "reqs_per_sec"))
        rows.append([linked(each.run, links), each.run.gpu, wer, rate, each.reason])
    return Table(["run", "gpu", "WER %", "reqs/sec", "reason"], rows, frozenset({2, 3}))


def _rank_changes(changes: Iterable[RankChange]) -> Table:
    rows = [
        [c.label, c.gpu, " → ".join(number(wer) for wer in c.wer), " → ".join(number(rank, 0) for rank in c.rank)]
        for c in changes
    ]
    return Table(["configuration", "gpu", "WER %", "rank"], rows, frozenset({2, 3}))
