"""What changed between two runs: params, metrics, and the utterances whose errors changed most."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from whisperbench.compare.paired_tests import paired_test
from whisperbench.measure.bootstrap import PairedTest
from whisperbench.results.keys import differing, fields_of
from whisperbench.results.run_record import RunRecord
from whisperbench.results.transcripts import StoredTranscripts, StoredUtterance

MOST_CHANGED = 20


@dataclasses.dataclass(frozen=True, slots=True)
class MetricChange:
    """A metric of two runs; None = not measured."""

    name: str
    a: float | None
    b: float | None

    @property
    def percent(self) -> float | None:
        """The change in percent of `a`; None where one is missing or `a` is 0."""
        return 100 * (self.b / self.a - 1) if self.a and self.b is not None else None


@dataclasses.dataclass(frozen=True, slots=True)
class ChangedUtterance:
    a: StoredUtterance
    b: StoredUtterance

    @property
    def change(self) -> int:
        """Errors more (or, below 0, less) in the second run."""
        return (self.b.errors or 0) - (self.a.errors or 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """From run `a` to run `b`.

    `not_comparable` lists the fields of the two keys that differ: with any, the rates say little, and
    unless `wer_is_comparable` so does the WER.
    `test` is the WER's paired test, b − a, or why there is none.
    """

    a: RunRecord
    b: RunRecord
    not_comparable: Mapping[str, tuple[str, str]]
    wer_is_comparable: bool
    params: Mapping[str, tuple[str, str]]
    metrics: tuple[MetricChange, ...]
    test: PairedTest | str
    utterances: tuple[ChangedUtterance, ...]


def difference(
    a: RunRecord, b: RunRecord, of_a: StoredTranscripts | None, of_b: StoredTranscripts | None, seed: int
) -> Difference:
    keys = [{**fields_of(run.accuracy_key or ""), **fields_of(run.speed_key or "")} for run in (a, b)]
    metrics = [MetricChange(name, a.metric(name), b.metric(name)) for name in sorted({*a.metrics, *b.metrics})]
    return Difference(
        a,
        b,
        not_comparable=differing(*keys),
        wer_is_comparable=a.accuracy_key == b.accuracy_key,
        params=differing(dict(sorted(a.params.items())), dict(sorted(b.params.items()))),
        metrics=tuple(m for m in metrics if m.a is not None or m.b is not None),
        test=paired_test(of_b, of_a, seed),
        utterances=most_changed(of_a or (), of_b or ()),
    )


def most_changed(of_a: StoredTranscripts, of_b: StoredTranscripts) -> tuple[ChangedUtterance, ...]:
    """The utterances of both runs whose number of errors changed most, in either direction."""
    before = {utterance.utt_id: utterance for utterance in of_a}
    pairs = [ChangedUtterance(before[u.utt_id], u) for u in of_b if u.utt_id in before]
    changed = [p for p in pairs if p.change and p.a.reference is not None and p.a.reference == p.b.reference]
    changed.sort(key=lambda pair: (-abs(pair.change), pair.a.utt_id))
    return tuple(changed[:MOST_CHANGED])
