"""Runs become leaderboards: what may be ranked together, in which order, and what ties.

Pure functions over run records; nothing here reads a server.  A board holds the configurations that
share an accuracy key and the kind of weights: their WER is ranked together.  Rates are ranked inside
one speed key (one GPU), and shown side by side across GPUs.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from whisperbench.compare.systems import Configuration, Spread, configurations
from whisperbench.measure.bootstrap import PairedTest
from whisperbench.results.keys import differing, fields_of
from whisperbench.results.names import ACCURACY_KEY, SPEED_KEY
from whisperbench.results.run_record import RunRecord


@dataclasses.dataclass(frozen=True, slots=True)
class Sorting:
    metric: str
    higher_is_better: bool


SORTINGS = {
    "wer": Sorting("wer", higher_is_better=False),
    "reqs_per_sec": Sorting("reqs_per_sec", higher_is_better=True),
    "rtfx": Sorting("rtfx", higher_is_better=True),
    "energy": Sorting("energy_wh_per_audio_hour", higher_is_better=False),
    "cost": Sorting("usd_per_audio_hour", higher_is_better=False),
}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Configurations whose WER may be ranked together; `fields` is the key that they share."""

    fields: Mapping[str, str]
    configurations: tuple[Configuration, ...]

    @property
    def newest(self) -> RunRecord:
        return max((c.newest for c in self.configurations), key=lambda run: run.start_time)

    @property
    def data(self) -> str:
        """`librispeech test-clean`: the data's name, for people."""
        params = self.newest.params
        corpus = params.get("corpus", "unknown data").rstrip("/").rpartition("/")[2]
        return " ".join(part for part in (corpus, params.get("split")) if part)

    def has(self, metric: str) -> bool:
        return any(c.median(metric) is not None for c in self.configurations)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One line of a leaderboard; `rank` is None where the metric that it is ranked by was not measured.

    `test` compares its errors with those of the most accurate configuration; `no_test` says why there is none.
    """

    configuration: Configuration
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


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    run: RunRecord
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Grouping:
    """The groups that get a board, the main one first, and the runs that are in none of them."""

    groups: tuple[Group, ...]
    left_out: tuple[LeftOut, ...]

    @classmethod
    def of(cls, records: Iterable[RunRecord], sort: str) -> Self:
        """The main group has the metric sorted by, most configurations, the newest run.

        A group of one configuration is ranked against nothing: it gets a board only if it is the main one.
        """
        found, left_out = defaultdict(list), []
        for record in records:
            if reason := _unfit(record):
                left_out.append(LeftOut(record, reason))
            else:
                found[_group_key(record)].append(record)
        groups = [Group(fields_of(key), configurations(runs)) for key, runs in found.items()]
        metric = SORTINGS[sort].metric
        groups.sort(key=lambda g: (g.has(metric), len(g.configurations), g.newest.start_time), reverse=True)
        kept = [group for number, group in enumerate(groups) if number == 0 or len(group.configurations) > 1]
        for group in groups:
            if group not in kept:
                nearest = min(kept, key=lambda other: len(differences(other, group)))
                reason = "nothing to be ranked against: " + "; ".join(differences(nearest, group))
                left_out += [LeftOut(run, reason) for c in group.configurations for run in c.runs]
        return cls(tuple(kept), tuple(left_out))


def differences(expected: Group, found: Group) -> tuple[str, ...]:
    """`limit: 20 instead of 0`, one text per differing field; a dataset's digest comes with its name."""

    def said(group: Group, name: str, value: str) -> str:
        return f"{group.data} ({value[:8]})" if name == "dataset" else value

    return tuple(
        f"{name}: {said(found, name, is_now)} instead of {said(expected, name, was)}"
        for name, (was, is_now) in differing(expected.fields, found.fields).items()
    )


def significantly_worse(test: PairedTest) -> bool:
    return test.significant and test.difference > 0


def contenders(group: Group) -> list[Configuration]:
    """The most accurate configuration first, then those that a paired test must tell from it.

    Where the two intervals do not even overlap no test is needed: errors on the same utterances are
    positively correlated, so the paired test is the sharper one.
    """
    scored = [configuration for _, configuration in _by_wer(group)]
    limits = scored[0].interval if scored else None
    return scored[:1] + [c for c in scored[1:] if limits is None or c.interval is None or c.interval.low <= limits.high]


def rank(group: Group, sort: str, tests: Mapping[str, PairedTest | str], *, differs: tuple[str, ...] = ()) -> Board:
    """Order a group by WER or by a rate.

    `tests`: the paired test of a configuration against the most accurate one, by its typical run's
    id, or a text that says why there is none.  Without the metric of `sort` the board is ranked by
    reqs_per_sec.
    """
    if not group.has(SORTINGS[sort].metric):
        sort = "reqs_per_sec"
    ranks = _accuracy_ranks(group, tests) if sort == "wer" else _rate_ranks(group, SORTINGS[sort])
    sharers = Counter((_race(c, sort), place) for c, place in ranks if place is not None)
    best, optimal = next(iter(contenders(group)), None), pareto(group.configurations)
    rows = []
    for configuration, place in ranks:
        found = tests.get(configuration.typical.run_id)
        rows.append(
            Row(
                configuration,
                place,
                tied=sharers[_race(configuration, sort), place or 0] > 1,
                pareto=configuration in optimal,
                most_accurate=configuration is best,
                test=found if isinstance(found, PairedTest) else None,
                no_test=found if isinstance(found, str) else None,
            )
        )
    return Board(group, sort, tuple(rows), differs)


def pareto(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Those that no other on the same GPU beats in WER or reqs/sec without losing in the other; fastest first."""
    measured = [(c, c.wer, c.median("reqs_per_sec")) for c in configurations]
    points = [(c, wer, rate) for c, wer, rate in measured if wer is not None and rate is not None]

    def beaten(key: str, wer: float, rate: float) -> bool:
        rivals = [(w, r) for c, w, r in points if c.speed_key == key]
        return any(w <= wer and r >= rate and (w, r) != (wer, rate) for w, r in rivals)

    optimal = [(rate, c) for c, wer, rate in points if not beaten(c.speed_key, wer, rate)]
    return [c for _, c in sorted(optimal, key=lambda pair: -pair[0])]


def best_per_gpu_and_model(board: Board) -> list[Row]:
    """The fastest configuration of each GPU and model, the fastest first."""
    best: dict[tuple[str, str], tuple[float, Row]] = {}
    for row in board.rows:
        rate = row.configuration.median("reqs_per_sec")
        place = (row.configuration.gpu, row.configuration.model_id)
        if rate is not None and (place not in best or rate > best[place][0]):
            best[place] = (rate, row)
    return [row for _, row in sorted(best.values(), key=lambda pair: -pair[0])]


def _race(configuration: Configuration, sort: str) -> str:
    """Configurations of one race compete for ranks: all of a board in WER, those on one GPU in a rate."""
    return "" if sort == "wer" else configuration.speed_key


def _accuracy_ranks(group: Group, tests: Mapping[str, PairedTest | str]) -> list[tuple[Configuration, int | None]]:
    """Who is not significantly worse than the best shares its rank; the others follow by WER."""
    scored = _by_wer(group)

    def ties(wer: float, configuration: Configuration) -> bool:
        test = tests.get(configuration.typical.run_id)
        return wer == scored[0][0] or (isinstance(test, PairedTest) and not significantly_worse(test))

    first, rest = ([(w, c) for w, c in scored if ties(w, c) is wanted] for wanted in (True, False))
    ranks: list[tuple[Configuration, int | None]] = [(c, 1) for _, c in first]
    ranks += [(c, 1 + len(first) + sum(other < wer for other, _ in rest)) for wer, c in rest]
    return ranks + [(c, None) for c in group.configurations if c.wer is None]


def _rate_ranks(group: Group, sorting: Sorting) -> list[tuple[Configuration, int | None]]:
    """GPU by GPU, the one with the best rate first; ranges that overlap the leader's range tie."""
    sign = -1 if sorting.higher_is_better else 1
    measured = [(c, s) for c in group.configurations if (s := c.spread(sorting.metric)) is not None]
    measured.sort(key=lambda pair: (sign * pair[1].median, pair[0].newest.run_id))
    ranks: list[tuple[Configuration, int | None]] = []
    for key in dict.fromkeys(c.speed_key for c, _ in measured):
        leader: tuple[int, Spread] | None = None
        for place, (configuration, spread) in enumerate(((c, s) for c, s in measured if c.speed_key == key), 1):
            if leader is None or not spread.overlaps(leader[1]):
                leader = (place, spread)
            ranks.append((configuration, leader[0]))
    ranked = {id(c) for c, _ in measured}
    return ranks + [(c, None) for c in group.configurations if id(c) not in ranked]


def _by_wer(group: Group) -> list[tuple[float, Configuration]]:
    scored = [(c.wer, c) for c in group.configurations]
    return sorted(((w, c) for w, c in scored if w is not None), key=lambda pair: (pair[0], pair[1].newest.run_id))


def _unfit(record: RunRecord) -> str | None:
    if record.accuracy_key is None or record.speed_key is None:
        missing = ACCURACY_KEY if record.accuracy_key is None else SPEED_KEY
        return f"it has no tag {missing}, so nobody knows what it may be compared with"
    if record.metric("wer") is None and record.metric("reqs_per_sec") is None:
        return "neither wer nor reqs_per_sec was measured"
    return None


def _group_key(record: RunRecord) -> str:
    weights = fields_of(record.speed_key or "").get("weights", "real")
    return f"{record.accuracy_key}|weights={weights}"
