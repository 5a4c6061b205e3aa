"""Groups of runs that may be ranked together, and the runs that cannot be ranked."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from whisperbench.compare.systems import System, systems
from whisperbench.config.compare import SORTINGS
from whisperbench.results.keys import differing, fields_of
from whisperbench.results.names import ACCURACY_KEY, SPEED_KEY
from whisperbench.results.record import RunRecord


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Systems whose WER may be ranked together."""

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
        return sorted(
            (system for system in self.systems if system.wer is not None),
            key=lambda s: (s.wer or 0.0, -(s.median("reqs_per_sec") or 0.0), s.label, s.newest.run_id),
        )

    def has(self, metric: str) -> bool:
        return any(system.median(metric) is not None for system in self.systems)


def grouped(records: Iterable[RunRecord], sort: str) -> tuple[list[Group], list[tuple[RunRecord, str]]]:
    """Groups of runs with equal `group_fields`, and the runs that cannot be ranked with the reason.

    Groups are ordered by: has the sort metric, has several systems, reference words, utterances, systems, newest run.
    The first is the main group, so a run over a few utterances never takes the place of a whole test set.
    """
    found, left_out = defaultdict(list), []
    for run in records:
        reason = incomparable(run)
        if not reason and run.wer is None and run.metric("reqs_per_sec") is None:
            reason = run.disturbed or "neither an error rate nor reqs_per_sec was measured"
        if reason:
            left_out.append((run, reason))
        else:
            found[tuple(group_fields(run).items())].append(run)
    groups = [Group(systems(runs)) for runs in found.values()]
    metric = SORTINGS[sort].metric
    groups.sort(
        key=lambda g: (g.has(metric), len(g.systems) > 1, g.size, len(g.systems), g.newest.start_time), reverse=True
    )
    return groups, left_out


def group_fields(run: RunRecord) -> dict[str, str]:
    """The fields of the accuracy key, and `weights` of the speed key, because random weights are ranked separately."""
    weights = fields_of(run.speed_key or "").get("weights", "real")
    return {**fields_of(run.accuracy_key or ""), "weights": weights}


def key_fields(run: RunRecord) -> dict[str, str]:
    """The fields of both comparability keys of a run."""
    return {**fields_of(run.accuracy_key or ""), **fields_of(run.speed_key or "")}


def differences(
    a: RunRecord, b: RunRecord, fields: Callable[[RunRecord], Mapping[str, str]] = key_fields
) -> dict[str, tuple[str, str]]:
    """The values of `fields` that differ between two runs; the digest of a dataset follows its name."""

    def shown(run: RunRecord, name: str, value: str) -> str:
        return f"{run.data} ({value[:8]})" if name == "dataset" else value

    changed = differing(fields(a), fields(b))
    return {name: (shown(a, name, old), shown(b, name, new)) for name, (old, new) in changed.items()}


def in_words(changed: Mapping[str, tuple[str, str]]) -> str:
    """`limit: 20 instead of all; language: de instead of en`."""
    return "; ".join(f"{name}: {new} instead of {old}" for name, (old, new) in changed.items())


def incomparable(run: RunRecord) -> str | None:
    """The reason why a run cannot be compared with other runs, or None."""
    missing = [tag for tag in (ACCURACY_KEY, SPEED_KEY) if tag not in run.tags]
    return f"it has no tag {missing[0]}" if missing else run.damaged
