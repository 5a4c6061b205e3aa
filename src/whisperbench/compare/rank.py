"""Order and ties of a leaderboard.

The WER is ranked among all systems of a group, a rate among the systems with one speed key (one GPU).  Systems that
are not significantly worse than the best one share its rank.  The significance level holds for all systems that are
ranked together.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from whisperbench.compare.groups import Group
from whisperbench.compare.systems import System
from whisperbench.config.compare import SORTINGS, Sorting
from whisperbench.stats.bootstrap import Interval
from whisperbench.stats.paired import PairedTest
from whisperbench.stats.rates import SpeedNoise

FAR = 3
"""Two WERs are not tested if their intervals, widened by this factor, do not overlap."""
MAX_INTERVAL_FACTOR = 10
"""The interval of a rate is shown only if its limits differ by less than this factor."""

Ranks = dict[System, tuple[str, int] | None]
"""Speed key (empty for the WER) and rank within it, by system; None = not ranked."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One line of a leaderboard.

    `rank` is None if the metric was not measured, or if it is a rate and no system was repeated on that GPU.  `test`
    compares the WER with that of the most accurate system; `no_test` is the reason why the test is impossible.
    `rate_interval` is the 95 % interval of reqs/sec; None if the noise is unknown.
    """

    system: System
    rank: int | None
    tied: bool
    pareto: bool
    most_accurate: bool = False
    test: PairedTest | None = None
    no_test: str | None = None
    rate_interval: Interval | None = None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Leaderboard:
    """A ranked group; `differs` lists the differences of its data and scoring from the first leaderboard."""

    group: Group
    sort: str
    rows: tuple[Row, ...]
    differs: tuple[str, ...] = ()


def significantly_worse(test: PairedTest) -> bool:
    return test.significant and test.difference > 0


def tested_systems(group: Group) -> list[System]:
    """The most accurate system, then the systems that are close enough to it to need a paired test."""
    scored = _by_wer(group)
    return [system for system in scored if system is scored[0] or not _far_apart(scored[0], system)]


def rank(
    group: Group, sort: str, tests: Mapping[str, PairedTest | str], *, differs: tuple[str, ...] = ()
) -> Leaderboard:
    """Order a group by WER or by a rate; by reqs_per_sec if the metric of `sort` was not measured.

    Args:
        tests: paired tests against the most accurate system, or reasons why they are impossible, by the id of the
            typical run of a system.
    """
    if not group.has(SORTINGS[sort].metric):
        sort = "reqs_per_sec"
    ranks = _accuracy_ranks(group, tests) if sort == "wer" else _rate_ranks(group, SORTINGS[sort])
    compared = len(group.systems) > 1  # a single system has no rank, and is neither best nor Pareto-optimal
    shared, optimal, intervals = Counter(ranks.values()), pareto(group.systems), _rate_intervals(group)
    lowest = min((system.wer for system in ranks if system.wer is not None), default=None)
    rows = []
    for system, place in ranks.items():
        test = tests.get(system.typical.run_id)
        row = Row(
            system,
            place[1] if place and compared else None,
            tied=place is not None and shared[place] > 1,
            pareto=compared and system in optimal,
            most_accurate=compared and system.wer is not None and system.wer == lowest,
            test=test if isinstance(test, PairedTest) else None,
            no_test=test if isinstance(test, str) else None,
            rate_interval=intervals.get(system),
        )
        rows.append(row)
    return Leaderboard(group, sort, tuple(rows), differs)


def pareto(systems: Sequence[System]) -> list[System]:
    """The Pareto-optimal systems of each GPU, the fastest first.

    For such a system, no other system of its speed key is better in WER or throughput and at least equal in the other.
    """
    rates = {s: rate for s in systems if s.wer is not None and (rate := s.median("reqs_per_sec")) is not None}
    points = {s: (s.wer or 0.0, -rate) for s, rate in rates.items()}

    def dominated(system: System) -> bool:
        wer, cost = points[system]
        others = (point for s, point in points.items() if s.speed_key == system.speed_key)
        return any(w <= wer and c <= cost and (w, c) != (wer, cost) for w, c in others)

    return sorted((s for s in points if not dominated(s)), key=lambda s: -rates[s])


def best_per_gpu_and_model(board: Leaderboard) -> list[Row]:
    """The best row of each GPU and model, best first.

    In a leaderboard by WER this is the fastest row, because settings hardly change the WER.
    """
    sorting = SORTINGS["reqs_per_sec" if board.sort == "wer" else board.sort]
    measured = [row for row in board.rows if row.system.median(sorting.metric) is not None]
    ordered = sorted(measured, key=lambda row: _sort_key(row.system, sorting))
    best: dict[tuple[str, str], Row] = {}
    for row in ordered:
        best.setdefault((row.system.gpu, row.system.model_id), row)
    return [row for row in (board.rows if board.sort == "wer" else ordered) if row in best.values()]


def rates_of(system: System, metric: str = "reqs_per_sec") -> list[tuple[float, ...]]:
    """The values of a rate in the repeats of each run, as the tests of rates expect them."""
    return [run.values(metric) for run in system.runs]


def _sort_key(system: System, sorting: Sorting) -> float:
    """Lower is better; infinity if the metric was not measured."""
    value = system.median(sorting.metric)
    return math.inf if value is None else -value if sorting.higher_is_better else value


def _accuracy_ranks(group: Group, tests: Mapping[str, PairedTest | str]) -> Ranks:
    """The lowest WER and its ties have rank 1; the other systems follow in the order of their WER."""
    scored = _by_wer(group)

    def ties(system: System) -> bool:
        test = tests.get(system.typical.run_id)
        return system.wer == scored[0].wer or (isinstance(test, PairedTest) and not significantly_worse(test))

    first, rest = [s for s in scored if ties(s)], [s for s in scored if not ties(s)]
    wers = [s.wer for s in rest]
    ranks: Ranks = dict.fromkeys(first, ("", 1))
    ranks |= {s: ("", 1 + len(first) + wers.index(s.wer)) for s in rest}
    return ranks | {s: None for s in group.systems if s.wer is None}


def _rate_ranks(group: Group, sorting: Sorting) -> Ranks:
    """Ranks within each GPU, the best rate first; None on a GPU without repeats.

    Systems that tie with the best one share its rank.  The procedure continues with the remaining systems.
    """
    measured = [s for s in group.systems if s.median(sorting.metric)]
    measured.sort(key=lambda s: (_sort_key(s, sorting), s.label, s.newest.run_id))
    ranks: Ranks = {}
    for systems in _by_gpu(measured):
        noise = SpeedNoise.of([rates_of(s, sorting.metric) for s in systems])
        if noise is None and len(systems) > 1:
            ranks |= dict.fromkeys(systems)
            continue
        place, left = 1, list(range(len(systems)))
        while left:
            ties = [i for i in left if i == left[0] or (noise and not noise.test(i, left[0]).significant)]
            ranks |= {systems[i]: (systems[i].speed_key, place) for i in ties}
            place, left = place + len(ties), [i for i in left if i not in ties]
    return ranks | {s: None for s in group.systems if s not in ranks}


def _rate_intervals(group: Group) -> dict[System, Interval]:
    """The intervals of reqs/sec that are narrow enough for a table."""
    found: dict[System, Interval] = {}
    for systems in _by_gpu(s for s in group.systems if s.median("reqs_per_sec")):
        if (noise := SpeedNoise.of(list(map(rates_of, systems)))) is not None:
            found |= {system: noise.interval(i) for i, system in enumerate(systems)}
    return {s: interval for s, interval in found.items() if interval.high < MAX_INTERVAL_FACTOR * interval.low}


def _by_gpu(systems: Iterable[System]) -> list[list[System]]:
    """Lists of systems with equal speed keys; the order is kept."""
    found: dict[str, list[System]] = {}
    for system in systems:
        found.setdefault(system.speed_key, []).append(system)
    return list(found.values())


def _by_wer(group: Group) -> list[System]:
    """Systems with a WER, the most accurate first; equally accurate systems are ordered by throughput."""
    fastest = SORTINGS["reqs_per_sec"]
    scored = [system for system in group.systems if system.wer is not None]
    return sorted(scored, key=lambda s: (s.wer, _sort_key(s, fastest), s.newest.run_id))


def _far_apart(best: System, other: System) -> bool:
    a, b = best.interval, other.interval
    if a is None or b is None or best.wer is None or other.wer is None:
        return False
    return other.wer - FAR * (other.wer - b.low) > best.wer + FAR * (a.high - best.wer)
