"""Order of a leaderboard, its verdicts on accuracy, and the best setting of each model and GPU."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from whisperbench.compare.groups import Group
from whisperbench.compare.systems import System
from whisperbench.compare.verdicts import Verdicts
from whisperbench.config.compare import SORTINGS, Sorting
from whisperbench.stats.paired import PairedDifference
from whisperbench.stats.rates import RateEstimate

FASTEST = SORTINGS["reqs_per_sec"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One line of a leaderboard.

    `verdict` compares the WER with that of the reference; it is None for the reference itself, and where `no_verdict`
    states the reason.  `speed` is the estimate of reqs/sec, None if it was not measured.
    """

    system: System
    is_reference: bool
    verdict: PairedDifference | None
    no_verdict: str | None
    speed: RateEstimate | None
    pareto: bool


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Leaderboard:
    """A sorted group; `differs` states how its data and scoring differ from those of the first leaderboard."""

    group: Group
    sort: str
    rows: tuple[Row, ...]
    verdicts: Verdicts
    differs: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class RankChange:
    """Place in the leaderboard and WER of a system before and after rescoring; None = no place or no WER."""

    label: str
    gpu: str
    rank: tuple[int | None, int | None]
    wer: tuple[float | None, float | None]


def rank(group: Group, sort: str, verdicts: Verdicts, *, differs: str = "") -> Leaderboard:
    """Sort a group by WER or by a rate; by reqs_per_sec if the metric of `sort` was not measured."""
    if not group.has(SORTINGS[sort].metric):
        sort = "reqs_per_sec"
    ordered = sorted(
        group.systems, key=lambda s: (sort_key(s, SORTINGS[sort]), sort_key(s, FASTEST), s.label, s.newest.run_id)
    )
    compared = len(group.systems) > 1  # a single system is neither a reference nor Pareto-optimal
    optimal = pareto(group.systems) if compared else []
    rows = [
        Row(
            system,
            is_reference=compared and system is verdicts.reference,
            verdict=verdicts.against(system),
            no_verdict=verdicts.reasons.get(system),
            speed=RateEstimate.of(system.by_run("reqs_per_sec")),
            pareto=system in optimal,
        )
        for system in ordered
    ]
    return Leaderboard(group, sort, tuple(rows), verdicts, differs)


def pareto(systems: Sequence[System]) -> list[System]:
    """The Pareto-optimal systems of each GPU, the fastest first.

    For such a system, no other system of its speed key is better in WER or throughput and at least equal in the other.
    """
    points = {
        s: (s.wer, -rate) for s in systems if s.wer is not None and (rate := s.median("reqs_per_sec")) is not None
    }

    def dominated(system: System) -> bool:
        own = points[system]
        others = (point for s, point in points.items() if s.newest.speed_key == system.newest.speed_key)
        return any(other != own and other[0] <= own[0] and other[1] <= own[1] for other in others)

    return sorted((s for s in points if not dominated(s)), key=lambda s: points[s][1])


def rank_changes(before: Sequence[Leaderboard], after: Sequence[Leaderboard]) -> tuple[RankChange, ...]:
    """Changes of place, in the new order."""
    old, new = (
        {row.system.newest.run_id: (rank, row.system) for board in boards for rank, row in enumerate(board.rows, 1)}
        for boards in (before, after)
    )
    changes = []
    for run_id, (rank, system) in new.items():
        old_rank, old_system = old.get(run_id, (None, None))
        if old_rank != rank:
            wers = old_system.wer if old_system else None, system.wer
            changes.append(RankChange(system.label, system.gpu, (old_rank, rank), wers))
    return tuple(changes)


def best_settings(board: Leaderboard) -> list[Row]:
    """The best row of each model and GPU at equal accuracy, best first (see `answer_sort`)."""
    sorting = SORTINGS[answer_sort(board)]
    found: dict[tuple[str, str], list[System]] = {}
    for row in board.rows:
        found.setdefault((row.system.model_id, row.system.gpu), []).append(row.system)
    best = [best_of(board, systems, sorting) for systems in found.values()]
    return sorted((row for row in board.rows if row.system in best), key=lambda row: sort_key(row.system, sorting))


def best_of(board: Leaderboard, systems: Sequence[System], sorting: Sorting) -> System:
    """The best of some systems; a system that is less accurate than its model's best is returned only if all are."""
    return min(systems, key=lambda system: (not _is_as_accurate(system, board), sort_key(system, sorting)))


def answer_sort(board: Leaderboard) -> str:
    """The sort order of the short answer: that of the board, but for WER the cost or, without prices, the speed."""
    known = [name for name in ("cost", "reqs_per_sec") if board.group.has(SORTINGS[name].metric)]
    return board.sort if board.sort != "wer" or not known else known[0]


def sort_key(system: System, sorting: Sorting) -> float:
    """Lower is better; infinity if the metric was not measured."""
    value = system.median(sorting.metric)
    return math.inf if value is None else -value if sorting.higher_is_better else value


def _is_as_accurate(system: System, board: Leaderboard) -> bool:
    """Whether a setting is not less accurate than the most accurate setting of its model, as far as is known."""
    if system.wer is None:
        return True
    of_model = [s for s in board.group.systems if s.model_id == system.model_id and s.wer is not None]
    best = min(of_model, key=lambda s: s.wer or 0.0)
    found = board.verdicts.against(system, best)
    worse = found is not None and found.outcome == "worse"
    return not worse and system.wer - (best.wer or 0.0) <= board.verdicts.margin
