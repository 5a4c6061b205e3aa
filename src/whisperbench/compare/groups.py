"""Groups of runs that may be ranked together, and the runs that cannot be ranked."""

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
    """Systems whose WER may be ranked together; `fields` is their common comparability key."""

    fields: Mapping[str, str]
    systems: tuple[System, ...]

    @property
    def newest(self) -> RunRecord:
        return max((system.newest for system in self.systems), key=lambda run: run.start_time)

    @property
    def size(self) -> tuple[float, float]:
        """Reference words (or characters) and utterances."""
        return self.newest.metric(f"reference_{self.systems[0].unit}") or 0.0, self.newest.metric("utterances") or 0.0

    @property
    def by_wer(self) -> list[System]:
        """Systems with a WER, the most accurate first; equally accurate systems are ordered by throughput."""
        scored = [
            ((system.wer, -(system.median("reqs_per_sec") or 0.0), system.label, system.newest.run_id), system)
            for system in self.systems
            if system.wer is not None
        ]
        return [system for _, system in sorted(scored, key=lambda each: each[0])]

    def has(self, metric: str) -> bool:
        return any(system.median(metric) is not None for system in self.systems)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """A run that is not ranked, or only by its WER (`speed_only`)."""

    run: RunRecord
    reason: str
    speed_only: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Grouping:
    """Groups with a leaderboard (the main group first), other groups of one system, and unranked runs."""

    groups: tuple[Group, ...]
    alone: tuple[Group, ...]
    left_out: tuple[LeftOut, ...]

    @classmethod
    def of(cls, records: Iterable[RunRecord], sort: str) -> Self:
        """Group the runs by accuracy key and weights.

        Groups are ordered by: has the sort metric, has several systems, reference words, utterances, systems, newest
        run.  The first is the main group, so a run over a few utterances never takes the place of a whole test set.
        A group of one system has a leaderboard only if it is the main group.
        """
        found, left_out = defaultdict(list), []
        for run in records:
            if reason := _unranked(run):
                left_out.append(LeftOut(run, reason))
            else:
                if run.disturbed:
                    left_out.append(LeftOut(run, f"only its speed is left out: {run.disturbed}", speed_only=True))
                # The accuracy key does not include the weights, but random weights are ranked separately.
                found[run.accuracy_key, fields_of(run.speed_key or "").get("weights", "real")].append(run)
        metric = SORTINGS[sort].metric
        groups = [
            Group({**fields_of(key or ""), "weights": weights}, systems(runs)) for (key, weights), runs in found.items()
        ]
        groups.sort(
            key=lambda g: (g.has(metric), len(g.systems) > 1, g.size, len(g.systems), g.newest.start_time), reverse=True
        )
        kept = [group for group in groups if group is groups[0] or len(group.systems) > 1]
        return cls(tuple(kept), tuple(group for group in groups if group not in kept), tuple(left_out))


def key_fields(run: RunRecord) -> dict[str, str]:
    """The fields of both comparability keys of a run."""
    return {**fields_of(run.accuracy_key or ""), **fields_of(run.speed_key or "")}


def differences(expected: Group, found: Group) -> tuple[str, ...]:
    """`limit: 20 instead of all` for each field that differs; the digest of a dataset follows its name."""

    return tuple(
        f"{name}: {shown_field(found.newest, name, new)} instead of {shown_field(expected.newest, name, old)}"
        for name, (old, new) in differing(expected.fields, found.fields).items()
    )


def shown_field(run: RunRecord, name: str, value: str) -> str:
    """The value of a key's field; the digest of a dataset is shown beside its name."""
    return f"{run.data} ({value[:8]})" if name == "dataset" else value


def _unranked(run: RunRecord) -> str | None:
    """The reason why a run cannot be ranked, or None."""
    for tag, key in ((ACCURACY_KEY, run.accuracy_key), (SPEED_KEY, run.speed_key)):
        if key is None:
            return f"it has no tag {tag}, so it cannot be compared with other runs"
    if run.wer is None and run.metric("reqs_per_sec") is None:
        return run.disturbed or "neither an error rate nor reqs_per_sec was measured"
    return None
