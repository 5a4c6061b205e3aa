"""Content of a comparison: a short answer, the leaderboards, and the sections after them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from whisperbench.compare.answer import answer
from whisperbench.compare.columns import Column, shown_columns
from whisperbench.compare.difference import AlignedUtterance
from whisperbench.compare.document import (
    NOT_MEASURED,
    Cell,
    Heading,
    Linked,
    Origin,
    Paragraph,
    Part,
    Table,
    counted,
    linked,
    number,
    section,
)
from whisperbench.compare.equal_settings import engine_comparison, gpu_comparison
from whisperbench.compare.groups import Group, LeftOut
from whisperbench.compare.published import Counterpart
from whisperbench.compare.rank import Leaderboard, Row
from whisperbench.compare.rescore import RankChange
from whisperbench.config.compare import SORTINGS
from whisperbench.results.links import Links

VERDICTS = (
    "Accuracy compares the {rate} of a row with that of {reference} on the same utterances: “same” if the whole "
    "interval of the difference lies within ±{margin:g} points (option margin), “worse” or “better” if it excludes 0, "
    "“not worse” if it excludes a loss of more than {margin:g} points, else “undecided”. The intervals hold for the "
    "whole table."
)
NO_VERDICTS = "There are no verdicts on accuracy, because fewer than two rows have transcripts of the same utterances."
RATES = (
    "Intervals are 95 % intervals. A rate or cost is the median of the repeats of a run, and the geometric mean of n "
    "runs; ± is the scatter from run to run."
)
LOOPS = "A repetition loop adds many errors at once, so a set without one cannot exclude them; the limit is shown."
PARETO = "★ is Pareto-optimal: no other configuration on that GPU is both faster and more accurate."


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
    origin: Origin

    @property
    def counts(self) -> str:
        """`64 runs compared, 3 without their speed, 2 left out`."""
        runs, alone = (sum(len(r.system.runs) for b in boards for r in b.rows) for boards in (self.boards, self.alone))
        without = f", {alone} without a counterpart" if alone else ""
        disturbed = sum(each.speed_only for each in self.left_out)
        slow = f", {disturbed} without their speed" if disturbed else ""
        return f"{counted(runs, 'run')} compared{without}{slow}, {len(self.left_out) - disturbed} left out"

    @property
    def answer(self) -> list[Part]:
        """The best choices and the best setting of each model and GPU, in at most 20 lines of 80 columns."""
        board = self.boards[0]
        footer = f"{self.counts}. All settings: --full, leaderboard.html."
        return answer(board, f"Whisper leaderboard: {data(board.group)}", footer)

    @property
    def parts(self) -> list[Part]:
        """The short answer, one table per leaderboard, and the other sections."""
        parts = [*self.answer[:-1], Paragraph(f"{self.counts}. Searched: {self.searched}.")]
        for board in self.boards:
            table = ranking(shown_columns(board), board.rows, self.links)
            parts += [Heading([title(board)]), table, Paragraph(explanation(board))]
        return [*parts, *self.sections]

    @property
    def sections(self) -> list[Part]:
        """The sections after the leaderboards; sections without content are omitted."""
        boards = (*self.boards, *self.alone)
        unchanged = "" if self.rank_changes is None else "No changes of order."
        benchmarks = dict.fromkeys(f"{p.published.benchmark}: {p.published.caveats}" for p in self.published)
        return [
            *section("GPUs at equal settings, and each at its best", gpu_comparison(self.boards)),
            *section("Engines at equal settings, and each at its best", engine_comparison(self.boards)),
            *section(f"One configuration on different data, {error_heading(boards)}", _across_data(boards)),
            *section("Configurations without a counterpart", _alone(self.alone, self.links)),
            *section(
                "Changes by rescoring",
                _rank_changes(self.rank_changes or (), error_heading(boards)),
                without_rows=unchanged,
            ),
            *section("Published benchmarks, not ranked", _published(self.published), note=" ".join(benchmarks)),
            *section("Left out", _left_out(self.left_out, self.links)),
        ]


def title(board: Leaderboard) -> str:
    """`Librispeech test-clean, 2,620 utterances, sorted by WER`."""
    by = board.rows[0].system.error_rate if board.sort == "wer" else SORTINGS[board.sort].heading
    how = f"sorted by {by}" if len(board.rows) > 1 else "one configuration"
    found = f"{data(board.group)}, {how}"
    return found[:1].upper() + found[1:]


def error_heading(boards: Iterable[Leaderboard]) -> str:
    """`WER %`, or `WER or CER %` for a table of several leaderboards."""
    return " or ".join(sorted({board.rows[0].system.error_rate for board in boards}, reverse=True)) + " %"


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
    """Sentences that explain the verdicts and the figures of a leaderboard."""
    sentences = [f"It is not comparable with the first table: {'; '.join(board.differs)}."] if board.differs else []
    if len(board.rows) > 1 and board.group.has("wer"):
        reference = "the reference" if board.verdicts.named else "the most accurate row (reference)"
        found = any(row.verdict for row in board.rows)
        sentences.append(
            VERDICTS.format(rate=board.rows[0].system.error_rate, reference=reference, margin=board.verdicts.margin)
            if found
            else NO_VERDICTS
        )
    if any(row.system.typical.metric("repetition_loops") is not None for row in board.rows):
        sentences.append(LOOPS)
    sentences.append(RATES)
    if any(row.pareto for row in board.rows):
        sentences.append(PARETO)
    return " ".join(sentences)


def on_gpu(row: Row) -> str:
    """`large-v3 fp8 seqs256 on NVIDIA H100 80GB HBM3`."""
    return f"{row.system.label} on {row.system.gpu}"


def _published(published: Iterable[Counterpart]) -> Table:
    rows: list[list[Cell]] = []
    for each in published:
        p, s = each.published, each.system
        theirs = [number(p.wer), *(_per_gpu(rate, p.gpus) for rate in (p.reqs_per_sec, p.rtfx))]
        ours = [NOT_MEASURED] * 4
        if s is not None:
            rates = [_per_gpu(s.median(metric), s.gpu_count) for metric in ("reqs_per_sec", "rtfx")]
            ours = [f"{s.label} on {s.gpu}", number(s.wer), *rates]
        best = f"{number(each.best_ratio)} with {each.best.description}" if each.best else NOT_MEASURED
        source = Linked(f"{p.source}, {p.date}" if p.date else p.source, p.url)
        names: list[Cell] = [p.benchmark, p.model, p.gpu, p.setting]
        rows.append([*names, *theirs, *ours, number(each.ratio), each.caveats, best, source])
    figures = ["WER %", "reqs/sec per GPU", "RTFx per GPU"]
    headings = ["benchmark", "model", "gpu", "engine", *figures, "measured here", *figures]
    headings += ["measured/published", "caveats", "best here/published", "source"]
    return Table(headings, rows, frozenset({4, 5, 6, 8, 9, 10, 11}))


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


def _alone(boards: Sequence[Leaderboard], links: Links) -> Table:
    rows: list[list[Cell]] = []
    for board in boards:
        (system,) = board.group.systems
        name, rate = Linked(system.label, links.run(system.newest)), number(system.median("reqs_per_sec"))
        rows.append([name, data(board.group), system.gpu, number(system.wer), rate, "; ".join(board.differs)])
    headings = ["configuration", "data", "gpu", error_heading(boards), "reqs/sec", "differs from the first table"]
    return Table(headings, rows, frozenset({3, 4}))


def _left_out(runs: Iterable[LeftOut], links: Links) -> Table:
    rows: list[list[Cell]] = []
    for each in runs:
        wer, rate = number(each.run.wer), number(each.run.metric("reqs_per_sec"))
        rows.append([linked(each.run, links), each.run.gpu, wer, rate, each.reason])
    return Table(["run", "gpu", "WER or CER %", "reqs/sec", "reason"], rows, frozenset({2, 3}))


def _rank_changes(changes: Iterable[RankChange], error_rate: str) -> Table:
    rows = [
        [c.label, c.gpu, " → ".join(number(wer) for wer in c.wer), " → ".join(number(rank, 0) for rank in c.rank)]
        for c in changes
    ]
    return Table(["configuration", "gpu", error_rate, "place"], rows, frozenset({2, 3}))
