"""What a leaderboard says, as plain text and tables: markdown, HTML and a terminal are renderings of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from whisperbench.compare.clips import Clip
from whisperbench.compare.columns import COLUMNS, Column, shown_columns
from whisperbench.compare.frames import frame_sections
from whisperbench.compare.groups import Group, LeftOut
from whisperbench.compare.leaderboard import Board, Row, best_per_gpu_and_model, level_with
from whisperbench.compare.published import SOURCE, UTTERANCES, Counterpart
from whisperbench.compare.questions import questions
from whisperbench.compare.rescoring import RankChange
from whisperbench.compare.tables import (
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
from whisperbench.options.sortings import SORTINGS, Sorting
from whisperbench.results.links import Links

MOST_NAMES = 4
MOST_FRONTS = 3  # GPUs whose optimal systems are told in words where there is no plot
MOST_ANSWERS = 12  # rows of the short answer: of more GPUs and models only the best on each GPU
BY_NAME = {column.name: column for column in COLUMNS}


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """Everything that a leaderboard's files are made from; boards in order, the main one first.

    `alone` are those of one configuration, ranked against nothing.

    `rank_changes` is None where nothing was rescored; `clips` are the worst of the main board's first row.
    """

    boards: tuple[Board, ...]
    alone: tuple[Board, ...]
    left_out: tuple[LeftOut, ...]
    published: tuple[Counterpart, ...]
    rank_changes: tuple[RankChange, ...] | None
    clips: tuple[Clip, ...]
    links: Links
    searched: str

    @property
    def summary(self) -> str:
        runs = sum(len(row.system.runs) for board in self.boards for row in board.rows)
        alone = sum(len(row.system.runs) for board in self.alone for row in board.rows)
        beside = f", {alone} ranked against nothing" if alone else ""
        return f"{counted(runs, 'run')} compared{beside}, {len(self.left_out)} left out. Searched: {self.searched}."

    @property
    def parts(self) -> list[Part]:
        """The short answer, one table per board, and the other sections."""
        main = self.boards[0]
        what, answer = best(main, self.links)
        parts: list[Part] = [Heading(["Whisper leaderboard"], 1), Paragraph(f"{data(main.group)}.", "Data")]
        parts += [Paragraph(text, subject) for subject, text in findings(main)]
        if answer.rows:
            parts += [Paragraph(what), answer]
        parts += [Paragraph(text, subject) for subject, text in optimal(main)[:MOST_FRONTS]]
        for board in self.boards:
            parts += [Heading([title(board)]), ranking(board, self.links), Paragraph(explanation(board))]
        return [*parts, *(part for section in self.after_the_boards for part in section.parts), Paragraph(self.summary)]

    @property
    def after_the_boards(self) -> list[Section]:
        """Engines and GPUs side by side, data sets side by side, lone runs, rescoring, published results, what was left
        out; only what there is."""
        found: list[Section] = [*questions(self.boards)]
        if (across := _across_data(self)).rows:
            found.append(Section("One configuration on different data, WER %", across))
        if self.alone:
            found.append(Section("Measured, ranked against nothing", _alone(self)))
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
    how = f"ranked by {SORTINGS[board.sort].heading}" if len(board.rows) > 1 else "one configuration"
    text = f"{data(board.group)}, {how}"
    return text[:1].upper() + text[1:]


def data(group: Group) -> str:
    """`librispeech test-clean, 2,620 utterances`: what figures are of."""
    count = group.newest.metric("utterances")
    parts = [group.data, *([] if count is None else [counted(round(count), "utterance")])]
    return ", ".join([*parts, *(["random weights"] if group.newest.random_weights else [])])


def explanation(board: Board) -> str:
    """How to read a board, in sentences."""
    said = []
    if board.differs:
        said.append(f"Not comparable with the first table: {'; '.join(board.differs)}.")
    if len(board.rows) == 1:
        said.append("WER with its 95 % interval.")
    elif board.sort == "wer":
        said.append(
            "WER with its 95 % interval. “=” marks a tie: the same WER, or not significantly worse than the best. The "
            "test is one for the whole table: paired, all systems’ speakers resampled together, p adjusted for the "
            "largest studentised difference of any pair, p ≥ 0.05."
        )
    else:
        said.append(
            "Ranks are per GPU. “=” marks a tie: not significantly worse than the first of that rank, p ≥ 0.05 for all "
            "rows of the GPU together (medians, in units of the noise of repeats, against simulated equal systems)."
        )
        if len(unknown := [row for row in board.rows if row.rank is None and _measured(row, board)]) > 1:
            gpus = ", ".join(dict.fromkeys(row.system.gpu for row in unknown))
            said.append(f"No ranks on {gpus}: nothing was measured twice there, so nobody knows the noise (repeats=3).")
    if board.group.has("reqs_per_sec"):
        said.append(
            "Rates are medians; their 95 % interval comes from the noise of repeats on that GPU, of the system itself "
            "or of others; n counts the repeats."
        )
    if any(row.pareto for row in board.rows):
        said.append("★ is Pareto-optimal: nothing on that GPU is both faster and more accurate.")
    return " ".join(said)


def _measured(row: Row, board: Board) -> bool:
    return row.system.median(SORTINGS[board.sort].metric) is not None


def best(board: Board, links: Links) -> tuple[str, Table]:
    """The short answer and what it is: each GPU and model at its best; of very many only the best on each GPU.

    No rows where there is one configuration.
    """
    found, of_each = best_per_gpu_and_model(board) if len(board.rows) > 1 else [], "GPU and model"
    if len(found) > MOST_ANSWERS:
        on_gpus: dict[str, Row] = {}
        for row in found:
            on_gpus.setdefault(row.system.gpu, row)
        found, of_each = list(on_gpus.values()), "GPU"
    sorting = SORTINGS[board.sort]
    columns = [BY_NAME[name] for name in dict.fromkeys(("wer", "reqs_per_sec", sorting.metric))]
    figures = [column for column in columns if column.is_shown(board.rows)]
    rows: list[list[Cell]] = [
        [
            Linked(row.system.label, links.run(row.system.newest)),
            row.system.gpu,
            *(column.text(row) for column in figures),
        ]
        for row in found
    ]
    headings = ["model kv/seqs", "gpu", *(column.heading for column in figures)]
    chosen = SORTINGS["reqs_per_sec" if board.sort == "wer" else board.sort].extreme
    return f"The {chosen} of each {of_each}:", Table(headings, rows, frozenset(range(2, len(headings))))


def findings(board: Board) -> list[tuple[str, str]]:
    """What is first in what the board is ranked by, in accuracy and in speed, with what ties: subject and text.

    No more than the tests allow: where nobody knows the noise of a rate, it is the highest one and not the fastest.
    """
    if len(board.rows) == 1:
        (row,) = board.rows
        figures = f"WER {BY_NAME['wer'].text(row)} %, {BY_NAME['reqs_per_sec'].text(row)} reqs/sec"
        return [("Measured", f"{on_gpu(row)}: {figures}. There is nothing to rank it against.")]
    said = []
    for sort in dict.fromkeys((board.sort, "wer", "reqs_per_sec")):
        if (first := _first(board, sort)) is None:
            continue
        if sort != "wer":
            said.append(_of_rate(board, first, sort, _figure(first, sort)))
            continue
        ties = [row for row in board.rows if row is not first and row.as_accurate_as_the_best]
        tied = f"; not significantly worse: {_names([on_gpu(row) for row in ties])}" if ties else ""
        said.append((SORTINGS[sort].first, f"{on_gpu(first)}, {_figure(first, sort)}{tied}."))
        among = dataclasses.replace(board, rows=(first, *ties))
        if (fastest := _first(among, "reqs_per_sec")) is not None and fastest is not first:
            figures = f"{_figure(fastest, 'reqs_per_sec')}, {_figure(fastest, 'wer')}"
            subject, text = _of_rate(among, fastest, "reqs_per_sec", figures)
            said.append((f"{subject} of these", text))
    return said


def _of_rate(board: Board, first: Row, sort: str, figures: str) -> tuple[str, str]:
    """Which has the best rate, as far as a test says so: on its GPU; what other GPUs do no test covers."""
    sorting, rows = SORTINGS[sort], [row for row in board.rows if row is not first]
    ties = level_with(board, first, sorting.metric)
    said = [f"{on_gpu(first)}, {figures}"]
    if ties:
        said.append(f"tied with it: {_names([on_gpu(row) for row in ties])}")
    if ties is None:
        said.append("no test: nothing was measured twice on that GPU (repeats=3)")
    near = [r for r in rows if r.system.speed_key != first.system.speed_key and _reaches(r, first, sorting)]
    if near:
        said.append(f"as near on another GPU, which no test covers: {_names([on_gpu(row) for row in near])}")
    tested = ties is not None and not near
    subject = sorting.first if tested else f"{sorting.extreme[:1].upper()}{sorting.extreme[1:]}"
    return subject, f"{'; '.join(said)}."


def _reaches(row: Row, first: Row, sorting: Sorting) -> bool:
    """Whether a rate's interval overlaps the first one's; a rate without one is only its value."""
    ends = []
    for each in (row, first):
        value, interval = each.system.median(sorting.metric), each.rates.get(sorting.metric)
        ends.append((interval.low, interval.high) if interval else (value, value))
    (low, high), (first_low, first_high) = ends
    if low is None or high is None or first_low is None or first_high is None:
        return False
    return high >= first_low if sorting.higher_is_better else low <= first_high


def optimal(board: Board) -> list[tuple[str, str]]:
    """The Pareto-optimal systems, GPU by GPU: subject and text."""
    said = []
    for gpu in dict.fromkeys(row.system.gpu for row in board.rows if row.pareto):
        found = [row.system for row in board.rows if row.pareto and row.system.gpu == gpu]
        found.sort(key=lambda c: -(c.median("reqs_per_sec") or 0))
        names = [f"{c.label} ({number(c.wer)}, {number(c.median('reqs_per_sec'))})" for c in found]
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
    if not any(each.system for each in report.published):
        headings, rows = headings[:6], [row[:6] for row in rows]
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


def _across_data(report: Report) -> Table:
    """The WER of a configuration on each of several data sets; no rows where none was measured on two."""
    largest: dict[str, Group] = {}
    for group in sorted((board.group for board in (*report.boards, *report.alone)), key=lambda group: group.size):
        if group.has("wer"):
            largest[group.data] = group
    names = sorted(largest)
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name in names:
        for c in largest[name].systems:
            found.setdefault((c.label, c.gpu), {})[name] = number(c.wer)
    rows = [
        [*place, *(wers.get(name, NOT_MEASURED) for name in names)]
        for place, wers in sorted(found.items())
        if sum(wer != NOT_MEASURED for wer in wers.values()) > 1
    ]
    headings = ["configuration", "gpu", *(data(largest[name]) for name in names)]
    return Table(headings, rows, frozenset(range(2, len(headings))))


def _alone(report: Report) -> Table:
    rows: list[list[Cell]] = []
    for board in report.alone:
        for c in board.group.systems:
            figures = [number(c.wer), number(c.median("reqs_per_sec"))]
            where: list[Cell] = [Linked(c.label, report.links.run(c.newest)), data(board.group), c.gpu]
            rows.append([*where, *figures, "; ".join(board.differs)])
    headings = ["configuration", "data", "gpu", "WER %", "reqs/sec", "differs from the first table"]
    return Table(headings, rows, frozenset({3, 4}))


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


def _first(board: Board, sort: str) -> Row | None:
    """The best row of a board; of equal WERs the fastest one."""
    if sort == "wer":
        found = [row for row in board.rows if row.most_accurate]
        return max(found, key=lambda row: row.system.median("reqs_per_sec") or 0.0, default=None)
    sorting = SORTINGS[sort]
    known = [(value, row) for row in board.rows if (value := row.system.median(sorting.metric)) is not None]
    pick = max if sorting.higher_is_better else min
    return pick(known, key=lambda pair: pair[0])[1] if known else None


def _figure(row: Row, sort: str) -> str:
    """`WER 2.31 %`, `41.34 reqs/sec`."""
    column = BY_NAME[SORTINGS[sort].metric]
    return f"WER {number(row.system.wer)} %" if sort == "wer" else f"{column.text(row)} {column.heading}"


def on_gpu(row: Row) -> str:
    """`large-v3 fp8/256 on NVIDIA H100 80GB HBM3`."""
    return f"{row.system.label} on {row.system.gpu}"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
