"""Groups become leaderboards: in which order, and what ties.

A board holds the systems of one group: their WER is ranked together.  Rates are ranked inside one speed
key (one GPU), and shown side by side across GPUs.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from whisperbench.compare.groups import Group
from whisperbench.compare.systems import Spread, System
from whisperbench.measure.bootstrap import PairedTest
from whisperbench.options import SORTINGS, Sorting


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One line of a leaderboard; `rank` is None where the metric that it is ranked by was not measured.

    `test` compares its errors with those of the most accurate system; `no_test` says why there is none.
    """

    system: System
    rank: int | None
    tied: bool
    pareto: bool
    most_accurate: bool = False
    test: PairedTest | None = None
    no_test: str | None = None

    @property
    def as_accurate_as_the_best(self) -> bool:
        return self.most_accurate or (self.test is not None and not significantly_worse(self.test))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Board:
    """A ranked group; `differs` lists how its data or scoring differ from the first board's."""

    group: Group
    sort: str
    rows: tuple[Row, ...]
    differs: tuple[str, ...] = ()


def significantly_worse(test: PairedTest) -> bool:
    return test.significant and test.difference > 0


def contenders(group: Group) -> list[System]:
    """The most accurate system first, then those that a paired test must tell from it.

    Where the two intervals do not even overlap no test is needed: errors on the same utterances are
    positively correlated, so the paired test is the sharper one.
    """
    scored = [system for _, system in _by_wer(group)]
    limits = scored[0].interval if scored else None
    return scored[:1] + [c for c in scored[1:] if limits is None or c.interval is None or c.interval.low <= limits.high]


def rank(group: Group, sort: str, tests: Mapping[str, PairedTest | str], *, differs: tuple[str, ...] = ()) -> Board:
    """Order a group by WER or by a rate.

    `tests`: the paired test of a system against the most accurate one, by its typical run's
    id, or a text that says why there is none.  Without the metric of `sort` the board is ranked by
    reqs_per_sec.
    """
    if not group.has(SORTINGS[sort].metric):
        sort = "reqs_per_sec"
    ranks = _accuracy_ranks(group, tests) if sort == "wer" else _rate_ranks(group, SORTINGS[sort])
    sharers = Counter((_race(c, sort), place) for c, place in ranks if place is not None)
    alone = len(group.systems) == 1  # it is neither best nor optimal of anything
    best, optimal = (None, []) if alone else (next(iter(contenders(group)), None), pareto(group.systems))
    rows = []
    for system, place in ranks:
        found = tests.get(system.typical.run_id)
        rows.append(
            Row(
                system,
                None if alone else place,
                tied=sharers[_race(system, sort), place or 0] > 1,
                pareto=system in optimal,
                most_accurate=system is best,
                test=found if isinstance(found, PairedTest) else None,
                no_test=found if isinstance(found, str) else None,
            )
        )
    return Board(group, sort, tuple(rows), differs)


def pareto(systems: Sequence[System]) -> list[System]:
    """Those that no other on the same GPU beats in WER or reqs/sec without losing in the other; fastest first."""
    measured = [(c, c.wer, c.median("reqs_per_sec")) for c in systems]
    points = [(c, wer, rate) for c, wer, rate in measured if wer is not None and rate is not None]

    def beaten(key: str, wer: float, rate: float) -> bool:
        rivals = [(w, r) for c, w, r in points if c.speed_key == key]
        return any(w <= wer and r >= rate and (w, r) != (wer, rate) for w, r in rivals)

    optimal = [(rate, c) for c, wer, rate in points if not beaten(c.speed_key, wer, rate)]
    return [c for _, c in sorted(optimal, key=lambda pair: -pair[0])]


def best_per_gpu_and_model(board: Board) -> list[Row]:
    """Of each GPU and model the system that is best in what the board is ranked by, best first.

    Settings hardly change the WER: where that ranks, the fastest one stands for its GPU and model.
    """
    sorting, speed = SORTINGS[board.sort], SORTINGS["reqs_per_sec"]
    chosen_by = speed if board.sort == "wer" else sorting

    def order(row: Row, by: Sorting) -> float:
        value = row.system.median(by.metric)
        return math.inf if value is None else (-value if by.higher_is_better else value)

    best: dict[tuple[str, str], Row] = {}
    for row in sorted(board.rows, key=lambda row: order(row, chosen_by)):
        if row.system.median(chosen_by.metric) is not None:
            best.setdefault((row.system.gpu, row.system.model_id), row)

    def place(row: Row) -> tuple[float, float]:
        """Of equally accurate ones the faster comes first."""
        return row.rank if board.sort == "wer" and row.rank else order(row, sorting), order(row, speed)

    return sorted(best.values(), key=place)


def _race(system: System, sort: str) -> str:
    """Systems of one race compete for ranks: all of a board in WER, those on one GPU in a rate."""
    return "" if sort == "wer" else system.speed_key


def _accuracy_ranks(group: Group, tests: Mapping[str, PairedTest | str]) -> list[tuple[System, int | None]]:
    """Who is not significantly worse than the best shares its rank; the others follow by WER."""
    scored = _by_wer(group)

    def ties(wer: float, system: System) -> bool:
        test = tests.get(system.typical.run_id)
        return wer == scored[0][0] or (isinstance(test, PairedTest) and not significantly_worse(test))

    first, rest = ([(w, c) for w, c in scored if ties(w, c) is wanted] for wanted in (True, False))
    ranks: list[tuple[System, int | None]] = [(c, 1) for _, c in first]
    ranks += [(c, 1 + len(first) + sum(other < wer for other, _ in rest)) for wer, c in rest]
    return ranks + [(c, None) for c in group.systems if c.wer is None]


def _rate_ranks(group: Group, sorting: Sorting) -> list[tuple[System, int | None]]:
    """GPU by GPU, the one with the best rate first; ranges that overlap the leader's range tie."""
    sign = -1 if sorting.higher_is_better else 1
    measured = [(c, s) for c in group.systems if (s := c.spread(sorting.metric)) is not None]
    measured.sort(key=lambda pair: (sign * pair[1].median, pair[0].newest.run_id))
    ranks: list[tuple[System, int | None]] = []
    for key in dict.fromkeys(c.speed_key for c, _ in measured):
        leader: tuple[int, Spread] | None = None
        for place, (system, spread) in enumerate(((c, s) for c, s in measured if c.speed_key == key), 1):
            if leader is None or not spread.overlaps(leader[1]):
                leader = (place, spread)
            ranks.append((system, leader[0]))
    ranked = {id(c) for c, _ in measured}
    return ranks + [(c, None) for c in group.systems if id(c) not in ranked]


def _by_wer(group: Group) -> list[tuple[float, System]]:
    """The most accurate first; of equal ones the faster."""
    scored = [(wer, c) for c in group.systems if (wer := c.wer) is not None]
    return sorted(scored, key=lambda pair: (pair[0], -(pair[1].median("reqs_per_sec") or 0.0), pair[1].newest.run_id))
