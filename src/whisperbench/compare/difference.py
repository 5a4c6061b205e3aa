"""Differences between two runs: params, metrics, and the utterances with the largest change of errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from whisperbench.compare.document import (
    NOT_MEASURED,
    Cell,
    Change,
    Heading,
    Part,
    Table,
    linked,
    number,
    section,
    side_by_side,
)
from whisperbench.compare.groups import differences
from whisperbench.compare.systems import System
from whisperbench.compare.verdicts import wer_difference
from whisperbench.measure.alignment import MAX_TEXT_LENGTH, AlignedSpan, align
from whisperbench.measure.result import UtteranceResult
from whisperbench.results.keys import differing
from whisperbench.results.links import Links
from whisperbench.results.names import METRICS, Metric
from whisperbench.results.record import RunRecord
from whisperbench.results.transcripts import StoredTranscripts
from whisperbench.stats.paired import PairedDifference
from whisperbench.stats.rates import rate_difference

MAX_CHANGED = 20
BY_NAME = {metric.name: metric for metric in METRICS}
FIRST_READ = (
    *("wer", "cer", "repetition_loops", "reqs_per_sec", "rtfx", "latency_p50_ms", "latency_p95_ms"),
    *("gpu_memory_peak_mib", "energy_wh_per_audio_hour", "usd_per_audio_hour"),
)
"""The ten metrics that people read first."""


@dataclasses.dataclass(frozen=True, slots=True)
class AlignedUtterance:
    """An utterance of a run with the alignment of its normalised transcript and reference."""

    utterance: UtteranceResult
    spans: list[AlignedSpan]

    @classmethod
    def of(cls, utterance: UtteranceResult, normalize: Callable[[str], str]) -> AlignedUtterance:
        pair = (utterance.reference or "", utterance.hypothesis)
        shortened = (text if len(text) <= MAX_TEXT_LENGTH else f"{text[:MAX_TEXT_LENGTH]} …" for text in pair)
        return cls(utterance, align(*(normalize(text).split() for text in shortened)))


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """Changes from run `a` to run `b`; `wer` is the difference b − a, or the reason why they cannot be compared."""

    a: RunRecord
    b: RunRecord
    wer: PairedDifference | str
    utterances: tuple[tuple[AlignedUtterance, AlignedUtterance], ...]

    @classmethod
    def of(
        cls,
        runs: tuple[RunRecord, RunRecord],
        transcripts: Mapping[str, StoredTranscripts | None],
        margin: float,
        normalize: Callable[[str], str],
    ) -> Difference:
        """Compare two runs; `transcripts` are those by run id, and `normalize` is applied before the alignment."""
        of_a, of_b = (transcripts.get(run.run_id) for run in runs)
        changed = most_changed(of_a or (), of_b or ())
        aligned = ((AlignedUtterance.of(x, normalize), AlignedUtterance.of(y, normalize)) for x, y in changed)
        return cls(*runs, wer_difference(of_a, of_b, margin), tuple(aligned))

    def parts(self, links: Links) -> list[Part]:
        """The runs, the tests, the fields that prevent a comparison, the params and the metrics."""
        runs = self.a, self.b
        a, b = (linked(run, links) for run in runs)
        parts: list[Part] = [Heading(["From ", a, " to ", b], 1), self.accuracy, self.speed]
        if fields := differences(*runs):
            what = "The rates are" if self.a.accuracy_key == self.b.accuracy_key else "WER and rates are"
            parts += [f"Warning: {what} not comparable, because these fields differ.", _table("field", fields)]
        params = differing(*(dict(sorted(run.params.items())) for run in runs))
        return [
            *parts,
            *section("Metrics", self._metrics(FIRST_READ)),
            *section("Params that differ", _table("param", params), without_rows="None."),
            side_by_side(runs, links),
        ]

    @property
    def rest(self) -> list[Part]:
        """The metrics that are not in FIRST_READ."""
        return section("Other metrics", self._metrics([name for name in BY_NAME if name not in FIRST_READ]))

    def _metrics(self, names: Iterable[str]) -> Table:
        measured = [BY_NAME[name] for name in names if (self.a.metric(name), self.b.metric(name)) != (None, None)]
        return Table(["metric", "from", "to", "change"], list(map(self._metric_row, measured)), frozenset({1, 2, 3}))

    def _metric_row(self, metric: Metric) -> list[Cell]:
        """The name, both values and the change.

        A change of the WER or the CER is better or worse only if that is the verdict.
        """
        a, b = self.a.metric(metric.name), self.b.metric(metric.name)
        change: Cell = NOT_MEASURED
        if a and b is not None:
            decided = metric.name not in ("wer", "cer") or getattr(self.wer, "outcome", "") in ("better", "worse")
            change = Change(100 * (b / a - 1), metric.better if decided else None)
        figures = (number(value, 0 if value is None else metric.decimals(value)) for value in (a, b))
        return [metric.name, *figures, change]

    @property
    def accuracy(self) -> str:
        """The verdict on the WER, its figures, and the repetition loops of both runs."""
        before, after = System((self.a,)), System((self.b,))
        if isinstance(self.wer, str):
            return f"{after.error_rate}: not compared, {self.wer}."
        loops = f" Repetition loops: {after.loops}, before {before.loops}." if after.loops else ""
        return f"{after.error_rate}: {self.wer.statement(after.unit)}, {self.wer.figures}.{loops}"

    @property
    def speed(self) -> str:
        """The change of the throughput in one sentence; one run of each side cannot show its noise."""
        rate = rate_difference([self.a.values("reqs_per_sec")], [self.b.values("reqs_per_sec")])
        if rate is None:
            causes = {run.disturbed for run in (self.a, self.b) if run.disturbed}
            return f"Speed: not compared, because {' and '.join(sorted(causes)) or 'it was not measured in both runs'}."
        comparable = self.a.speed_key == self.b.speed_key
        reason = "of one run each, so its noise is unknown" if comparable else "of runs that are not comparable"
        return f"Speed: {rate.candidate:.2f} instead of {rate.baseline:.2f} reqs/sec ({rate.change:+.1f} %), {reason}."


def added_errors(a: UtteranceResult, b: UtteranceResult) -> int:
    """Errors of `b` minus errors of `a`."""
    return (b.errors or 0) - (a.errors or 0)


def most_changed(of_a: StoredTranscripts, of_b: StoredTranscripts) -> list[tuple[UtteranceResult, UtteranceResult]]:
    """Pairs of equal utterances with the largest change of errors, in either direction."""
    before = {utterance.utt_id: utterance for utterance in of_a}
    pairs = [(before[u.utt_id], u) for u in of_b if u.utt_id in before]
    scored = [(a, b) for a, b in pairs if a.reference is not None and a.reference == b.reference]
    changed = [pair for pair in scored if added_errors(*pair)]
    return sorted(changed, key=lambda pair: (-abs(added_errors(*pair)), pair[0].utt_id))[:MAX_CHANGED]


def _table(name: str, changes: Mapping[str, tuple[str, str]]) -> Table:
    return Table([name, "from", "to"], [[field, *pair] for field, pair in changes.items()])
