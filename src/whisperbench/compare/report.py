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
    Part,
    Table,
    counted,
    linked,
    number,
    section,
)
from whisperbench.compare.equal_settings import engine_comparison, gpu_comparison
from whisperbench.compare.groups import Group
from whisperbench.compare.published import Counterpart
from whisperbench.compare.rank import Leaderboard, RankChange, Row
from whisperbench.config.compare import SORTINGS
from whisperbench.results.links import Links
from whisperbench.results.record import RunRecord

ERROR_RATE = (
    "{0} that were wrong, missing or invented, per 100 {0} of the reference; lower is better. The range in parentheses "
    "shows how far the figure depends on the speakers who happened to be recorded: with other speakers of the same "
    "kind, it would lie there in 95 of 100 cases."
)
EXPLANATIONS = {
    "wer": ("WER", ERROR_RATE.format("words")),
    "cer": ("CER", ERROR_RATE.format("characters")),
    "wer_verdict": (
        "accuracy",
        "comparison with the reference (the most accurate row, unless another was named) on the same recordings. Same: "
        "they differ by at most {margin:g} points, which the option margin sets. Worse and better: the difference is "
        "more than chance. Not worse: it may be better, and is not worse by more than {margin:g} points. Undecided: "
        "more recordings are needed for a verdict. The statements hold for the whole table, with a risk of error of "
        "5 %.",
    ),
    "repetition_loops": (
        "loops",
        "transcripts in which the model repeated a phrase many times, or wrote more than can be spoken in that time. "
        "They are rare, and each adds many errors at once. A set without one cannot exclude them, so the limit is "
        "shown.",
    ),
    "reqs_per_sec": (
        "reqs/s, RTFx",
        "recordings transcribed per second, and hours of audio transcribed per hour: the median of the repeats of a "
        "run, and the geometric mean of n runs. ± is the usual difference from one run to the next; a smaller "
        "difference between two rows may be chance. Without it the speed was measured once, so how much it varies is "
        "not known: measure three times to compare speeds.",
    ),
    "usd_per_audio_hour": ("¢", "price of the GPUs for one hour of audio, from their hourly price and RTFx."),
    "pareto": (
        "★",
        "on this GPU no other setting is both faster and more accurate. The dashed lines of the plot connect these "
        "settings.",
    ),
}
"""Terms and their explanations, by the name of the column that has to be explained."""


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """The content of the files of a comparison: `every` leaderboard in order, the main one first.

    `left_out` are the runs that are not ranked, with the reason.  `rank_changes` is None without rescoring.
    `utterances` are those with the most errors in the first row of the main leaderboard, and `audio` holds the data:
    URLs of their audio by utterance id.  `searched` describes where the runs were found, `origin` the command, time and
    store.
    """

    every: tuple[Leaderboard, ...]
    left_out: Sequence[tuple[RunRecord, str]]
    published: tuple[Counterpart, ...]
    rank_changes: tuple[RankChange, ...] | None
    utterances: tuple[AlignedUtterance, ...]
    audio: Mapping[str, str]
    links: Links
    searched: str
    origin: Mapping[str, str]

    @property
    def boards(self) -> list[Leaderboard]:
        """The leaderboards that have a table: the main one, and the others of several configurations."""
        return [board for board in self.every if board is self.every[0] or len(board.rows) > 1]

    @property
    def alone(self) -> list[Leaderboard]:
        """The leaderboards of one configuration that is not comparable with any other."""
        return [board for board in self.every if board not in self.boards]

    @property
    def without_speed(self) -> list[tuple[RunRecord, str]]:
        """The runs of which only the WER is ranked, with the reason."""
        runs = (run for board in self.every for row in board.rows for run in row.system.runs)
        return [(run, run.disturbed) for run in runs if run.disturbed]

    @property
    def counts(self) -> str:
        """`64 runs compared, 3 without their speed, 2 left out`."""
        runs, alone = (sum(len(r.system.runs) for b in boards for r in b.rows) for boards in (self.boards, self.alone))
        without = f", {alone} without a counterpart" if alone else ""
        slow = f", {len(self.without_speed)} without their speed" if self.without_speed else ""
        return f"{counted(runs, 'run')} compared{without}{slow}, {len(self.left_out)} left out"

    @property
    def answer(self) -> list[Part]:
        """The best choices and the best setting of each model and GPU, in at most 20 lines of 80 columns."""
        board = self.every[0]
        footer = f"{self.counts}. All settings: --full, leaderboard.html."
        return answer(board, f"Whisper leaderboard: {data(board.group)}", footer)

    @property
    def parts(self) -> list[Part]:
        """The short answer, one table per leaderboard, and the other sections."""
        parts = [*self.answer[:-1], f"{self.counts}. Searched: {self.searched}."]
        for board in self.boards:
            columns = shown_columns(board)
            cells = [[cell(column, row, self.links) for column in columns] for row in board.rows]
            numeric = frozenset(place for place, column in enumerate(columns) if column.numeric)
            parts += [Heading([title(board)]), Table([column.heading for column in columns], cells, numeric)]
            parts += [f"Not comparable with the first table: {board.differs}."] if board.differs else []
        terms = [f"{term}: {text}" for term, text in self.reading]
        return [*parts, *self.sections, Heading(["How to read the figures"]), *terms]

    @property
    def reading(self) -> list[tuple[str, str]]:
        """Terms of the leaderboards and their explanations."""
        shown = {column.name for board in self.boards for column in shown_columns(board)}
        margin = self.every[0].verdicts.margin
        return [(term, text.format(margin=margin)) for name, (term, text) in EXPLANATIONS.items() if name in shown]

    @property
    def sections(self) -> list[Part]:
        """The sections after the leaderboards; sections without content are omitted."""
        rate = error_heading(self.every)
        unchanged = "" if self.rank_changes is None else "No changes of order."
        caveats = " ".join(dict.fromkeys(f"{p.published.benchmark}: {p.published.caveats}" for p in self.published))
        return [
            *section("GPUs at equal settings, and each at its best", gpu_comparison(self.boards)),
            *section("Engines at equal settings, and each at its best", engine_comparison(self.boards)),
            *section(f"One configuration on different data, {rate}", _across_data(self.every)),
            *section("Configurations without a counterpart", _alone(self.alone, self.links)),
            *section("Changes by rescoring", _rank_changes(self.rank_changes or (), rate), without_rows=unchanged),
            *section("Published benchmarks, not ranked", _published(self.published), note=caveats),
            *section("Without their speed", _runs(self.without_speed, self.links)),
            *section("Left out", _runs(self.left_out, self.links)),
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


def cell(column: Column, row: Row, links: Links) -> Cell:
    text = column.text(row)
    return Linked(text, links.run(row.system.newest)) if column.link else text


def _published(published: Iterable[Counterpart]) -> Table:
    rows: list[list[Cell]] = []
    for each in published:
        p, s = each.published, each.system
        theirs = [number(p.wer), _per_gpu(p.reqs_per_sec, p.gpus), _per_gpu(p.rtfx, p.gpus)]
        ours = [NOT_MEASURED] * 4
        if s is not None:
            rates = [_per_gpu(s.median(metric), s.gpu_count) for metric in ("reqs_per_sec", "rtfx")]
            ours = [f"{s.label} on {s.gpu}", number(s.wer), *rates]
        best = f"{number(p.ratio_of(each.best))} with {each.best.description}" if each.best else NOT_MEASURED
        source = Linked(f"{p.source}, {p.date}" if p.date else p.source, p.url)
        names = [p.benchmark, p.model, p.gpu, p.setting]
        rows.append([*names, *theirs, *ours, number(each.ratio), each.caveats, best, source])
    figures = ["WER %", "reqs/sec per GPU", "RTFx per GPU"]
    headings = ["benchmark", "model", "gpu", "engine", *figures, "measured here", *figures]
    headings += ["measured/published", "caveats", "best here/published", "source"]
    return Table(headings, rows, frozenset({4, 5, 6, 8, 9, 10, 11}))


def _per_gpu(rate: float | None, gpus: int) -> str:
    return number(None if rate is None else rate / gpus)


def _across_data(boards: Iterable[Leaderboard]) -> Table:
    """The WER of each configuration that was measured on several data sets; of equal names, the largest data set."""
    groups = sorted((board.group for board in boards if board.group.has("wer")), key=lambda group: group.size)
    largest = dict(sorted({group.newest.data: group for group in groups}.items()))
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name, group in largest.items():
        for system in group.systems:
            found.setdefault((system.label, system.gpu), {})[name] = number(system.wer)
    rows = [
        [*place, *(wers.get(name, NOT_MEASURED) for name in largest)]
        for place, wers in sorted(found.items())
        if len(wers) > 1
    ]
    headings = ["configuration", "gpu", *map(data, largest.values())]
    return Table(headings, rows, frozenset(range(2, len(headings))))


def _alone(boards: Sequence[Leaderboard], links: Links) -> Table:
    rows: list[list[Cell]] = []
    for board in boards:
        system = board.rows[0].system
        name, rate = Linked(system.label, links.run(system.newest)), number(system.median("reqs_per_sec"))
        rows.append([name, data(board.group), system.gpu, number(system.wer), rate, board.differs])
    headings = ["configuration", "data", "gpu", error_heading(boards), "reqs/sec", "differs from the first table"]
    return Table(headings, rows, frozenset({3, 4}))


def _runs(runs: Iterable[tuple[RunRecord, str]], links: Links) -> Table:
    """Runs with a reason each."""
    rows: list[list[Cell]] = [
        [linked(run, links), run.gpu, number(run.wer), number(run.metric("reqs_per_sec")), reason]
        for run, reason in runs
    ]
    return Table(["run", "gpu", "WER or CER %", "reqs/sec", "reason"], rows, frozenset({2, 3}))


def _rank_changes(changes: Iterable[RankChange], error_rate: str) -> Table:
    rows = [
        [c.label, c.gpu, " → ".join(number(wer) for wer in c.wer), " → ".join(number(rank, 0) for rank in c.rank)]
        for c in changes
    ]
    return Table(["configuration", "gpu", error_rate, "place"], rows, frozenset({2, 3}))
