"""The order of a leaderboard and its ties.

The WER of all systems of a group is ranked together, rates within one speed key (one GPU).  Systems that are not
significantly worse than the best share its rank, at one level for the whole leaderboard (or GPU); the others follow.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from whisperbench.compare.groups import Group
from whisperbench.compare.systems import System
from whisperbench.config.compare import SORTINGS, Sorting
from whisperbench.results.names import METRICS
from whisperbench.stats.bootstrap import Interval
from whisperbench.stats.paired import PairedTest
from whisperbench.stats.rates import SpeedNoise

FAR = 3
"""Intervals this many times as wide that still do not overlap need no test: six standard errors, added up, apart."""
WIDEST = 10
"""The interval of a rate that spans a larger factor is not shown."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One line of a leaderboard; `rank` is None if the metric was not measured, or a rate without repeats on that GPU.

    `test` compares its errors with those of the most accurate system; `no_test` is the reason why it is missing.
    `rates` holds the 95 % interval of each rate whose noise is known, by metric.
    """

    system: System
    rank: int | None
    tied: bool
    pareto: bool
    most_accurate: bool = False
    test: PairedTest | None = None
    no_test: str | None = None
    rates: Mapping[str, Interval] = dataclasses.field(default_factory=dict)

    @property
    def as_accurate_as_the_best(self) -> bool:
        return self.most_accurate or (self.test is not None and not significantly_worse(self.test))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Leaderboard:
    """A ranked group; `differs` lists how its data or scoring differ from the first board's."""

    group: Group
    sort: str
    rows: tuple[Row, ...]
    differs: tuple[str, ...] = ()


def significantly_worse(test: PairedTest) -> bool:
    return test.significant and test.difference > 0


def tested_systems(group: Group) -> list[System]:
    """The most accurate system first, then those that a test must tell from it: whose interval is not far away."""
    scored = _by_wer(group)
    if not scored:
        return []
    lowest, best = scored[0]

    def is_near(wer: float, interval: Interval | None) -> bool:
        limits = best.interval
        if wer == lowest or limits is None or interval is None:
            return True
        return wer - FAR * (wer - interval.low) <= lowest + FAR * (limits.high - lowest)

    return [best, *(c for wer, c in scored[1:] if is_near(wer, c.interval))]


def rank(
    group: Group, sort: str, tests: Mapping[str, PairedTest | str], *, differs: tuple[str, ...] = ()
) -> Leaderboard:
    """Order a group by WER or by a rate.

    `tests`: by the id of a system's typical run the paired test against the most accurate system, or the reason why it
    is missing.  Without the metric of `sort` the leaderboard is ranked by reqs_per_sec.
    """
    if not group.has(SORTINGS[sort].metric):
        sort = "reqs_per_sec"
    ranks = _accuracy_ranks(group, tests) if sort == "wer" else _rate_ranks(group, SORTINGS[sort])
    sharers = Counter((_race(c, sort), place) for c, place in ranks if place is not None)
    alone = len(group.systems) == 1  # it is neither best nor optimal of anything
    lowest = None if alone else min((c.wer for c in group.systems if c.wer is not None), default=None)
    optimal, intervals = [] if alone else pareto(group.systems), _rate_intervals(group)
    rows = []
    for system, place in ranks:
        found = tests.get(system.typical.run_id)
        rows.append(
            Row(
                system,
                None if alone else place,
                tied=sharers[_race(system, sort), place or 0] > 1,
                pareto=system in optimal,
                most_accurate=system.wer is not None and system.wer == lowest,
                test=found if isinstance(found, PairedTest) else None,
                no_test=found if isinstance(found, str) else None,
                rates=intervals[id(system)],
            )
        )
    return Leaderboard(group, sort, tuple(rows), differs)


def pareto(systems: Sequence[System]) -> list[System]:
    """Those that no other on the same GPU beats in WER or reqs/sec without losing in the other; fastest first."""
    measured = [(c, c.wer, c.median("reqs_per_sec")) for c in systems]
    points = [(c, wer, rate) for c, wer, rate in measured if wer is not None and rate is not None]

    def beaten(key: str, wer: float, rate: float) -> bool:
        rivals = [(w, r) for c, w, r in points if c.speed_key == key]
        return any(w <= wer and r >= rate and (w, r) != (wer, rate) for w, r in rivals)

    optimal = [(rate, c) for c, wer, rate in points if not beaten(c.speed_key, wer, rate)]
    return [c for _, c in sorted(optimal, key=lambda pair: -pair[0])]


def best_per_gpu_and_model(board: Leaderboard) -> list[Row]:
    """The best row of each GPU and model by the sort metric, best first.

    Settings hardly change the WER, so on a leaderboard by WER the fastest setting is the best one.
    """
    sorting = SORTINGS["reqs_per_sec" if board.sort == "wer" else board.sort]
    sign = -1 if sorting.higher_is_better else 1
    measured = [(sign * value, row) for row in board.rows if (value := row.system.median(sorting.metric)) is not None]
    ordered = [row for _, row in sorted(measured, key=lambda pair: pair[0])]
    best: dict[tuple[str, str], Row] = {}
    for row in ordered:
        best.setdefault((row.system.gpu, row.system.model_id), row)
    return [row for row in (board.rows if board.sort == "wer" else ordered) if row in best.values()]


def _race(system: System, sort: str) -> str:
    """Systems of one race compete for ranks: all of a board in WER, those on one GPU in a rate."""
    return "" if sort == "wer" else system.speed_key


def _accuracy_ranks(group: Group, tests: Mapping[str, PairedTest | str]) -> list[tuple[System, int | None]]:
    scored = _by_wer(group)

    def ties(wer: float, system: System) -> bool:
        test = tests.get(system.typical.run_id)
        return wer == scored[0][0] or (isinstance(test, PairedTest) and not significantly_worse(test))

    first = [c for wer, c in scored if ties(wer, c)]
    rest = [(wer, c) for wer, c in scored if not ties(wer, c)]
    ranks: list[tuple[System, int | None]] = [(c, 1) for c in first]
    ranks += [(c, 1 + len(first) + sum(other < wer for other, _ in rest)) for wer, c in rest]
    return ranks + [(c, None) for c in group.systems if c.wer is None]


def _rate_ranks(group: Group, sorting: Sorting) -> list[tuple[System, int | None]]:
    """GPU by GPU, the best rate first; no ranks on a GPU without repeats.

    Of the systems that are worse than the best, the next best has the next rank, with those that tie with it.
    """
    sign = -1 if sorting.higher_is_better else 1
    measured = [(sign * median, c) for c in group.systems if (median := c.median(sorting.metric) or 0.0) > 0]
    measured.sort(key=lambda pair: (pair[0], pair[1].label, pair[1].newest.run_id))
    ranks: list[tuple[System, int | None]] = []
    for key in dict.fromkeys(c.speed_key for _, c in measured):
        racers = [c for _, c in measured if c.speed_key == key]
        noise = SpeedNoise.of(racers, sorting.metric)
        if noise is None and len(racers) > 1:
            ranks += [(c, None) for c in racers]
            continue
        place = 1
        while racers:
            ties = [c for c in racers if c is racers[0] or (noise and not noise.test(c, racers[0]).significant)]
            ranks += [(c, place) for c in ties]
            place, racers = place + len(ties), [c for c in racers if c not in ties]
    ranked = {id(c) for c, _ in ranks}
    return ranks + [(c, None) for c in group.systems if id(c) not in ranked]


def _rate_intervals(group: Group) -> dict[int, dict[str, Interval]]:
    """Each system's intervals, by its id() and the metric's name."""
    found: dict[int, dict[str, Interval]] = {id(c): {} for c in group.systems}
    for key in {c.speed_key for c in group.systems}:
        racers = [c for c in group.systems if c.speed_key == key]
        for metric in (each.name for each in METRICS if each.heading):
            if (noise := SpeedNoise.of(racers, metric)) is not None:
                for c in noise.systems:
                    interval = noise.interval(c)
                    if interval.high < WIDEST * interval.low:
                        found[id(c)][metric] = interval
    return found


def _by_wer(group: Group) -> list[tuple[float, System]]:
    """The most accurate first; of equal ones the faster."""
    scored = [(wer, c) for c in group.systems if (wer := c.wer) is not None]
    return sorted(scored, key=lambda pair: (pair[0], -(pair[1].median("reqs_per_sec") or 0.0), pair[1].newest.run_id))
