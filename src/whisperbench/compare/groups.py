"""Which runs may be ranked together, which are left out, and why."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Self

from whisperbench.compare.systems import System, systems
from whisperbench.config.compare import SORTINGS
from whisperbench.results.keys import differing, fields_of
from whisperbench.results.names import ACCURACY_KEY, SPEED_KEY
from whisperbench.results.record import RunRecord


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Systems whose WER may be ranked together; `fields` is the key that they share."""

    fields: Mapping[str, str]
    systems: tuple[System, ...]

    @property
    def newest(self) -> RunRecord:
        return max((c.newest for c in self.systems), key=lambda run: run.start_time)

    @property
    def data(self) -> str:
        """`librispeech test-clean`."""
        return self.newest.data

    @property
    def size(self) -> tuple[float, float]:
        """Reference words and utterances."""
        words, utterances = (self.newest.metric(name) or 0.0 for name in ("reference_words", "utterances"))
        return words, utterances

    def has(self, metric: str) -> bool:
        return any(c.median(metric) is not None for c in self.systems)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    run: RunRecord
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Grouping:
    """Groups with a leaderboard, the main one first; other groups of one system; and the runs that were left out."""

    groups: tuple[Group, ...]
    alone: tuple[Group, ...]
    left_out: tuple[LeftOut, ...]

    @classmethod
    def of(cls, records: Iterable[RunRecord], sort: str) -> Self:
        """The main group has the sort metric, several systems, the most reference words and the newest run.

        A run over a few utterances is therefore never shown in place of a whole test set.  A group of one system has a
        leaderboard only if it is the main group.
        """
        found, left_out = defaultdict(list), []
        for record in records:
            if reason := _unfit(record):
                left_out.append(LeftOut(record, reason))
            else:
                found[_group_key(record)].append(record)
        groups = [Group(fields_of(key), systems(runs)) for key, runs in found.items()]
        metric = SORTINGS[sort].metric
        groups.sort(
            key=lambda g: (g.has(metric), len(g.systems) > 1, g.size, len(g.systems), g.newest.start_time), reverse=True
        )
        kept = [group for group in groups if group is groups[0] or len(group.systems) > 1]
        return cls(tuple(kept), tuple(group for group in groups if group not in kept), tuple(left_out))


def differences(expected: Group, found: Group) -> tuple[str, ...]:
    """`limit: 20 instead of 0`, one text per differing field; a dataset's digest comes with its name."""

    def shown(group: Group, name: str, value: str) -> str:
        return f"{group.data} ({value[:8]})" if name == "dataset" else value

    return tuple(
        f"{name}: {shown(found, name, is_now)} instead of {shown(expected, name, was)}"
        for name, (was, is_now) in differing(expected.fields, found.fields).items()
    )


def _unfit(record: RunRecord) -> str | None:
    if record.accuracy_key is None or record.speed_key is None:
        missing = ACCURACY_KEY if record.accuracy_key is None else SPEED_KEY
        return f"it has no tag {missing}, so it cannot be decided what it may be compared with"
    if record.metric("wer") is None and record.metric("reqs_per_sec") is None:
        return "neither wer nor reqs_per_sec was measured"
    return None


def _group_key(record: RunRecord) -> str:
    weights = fields_of(record.speed_key or "").get("weights", "real")
    return f"{record.accuracy_key}|weights={weights}"
