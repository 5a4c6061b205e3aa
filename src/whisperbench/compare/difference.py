"""What changed between two runs: params, metrics, and the utterances whose errors changed most."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping

from whisperbench.compare.paired_tests import paired_test
from whisperbench.compare.speed_noise import SpeedNoise
from whisperbench.compare.systems import System
from whisperbench.compare.tables import (
    NOT_MEASURED,
    Heading,
    Paragraph,
    Part,
    Section,
    Table,
    linked,
    number,
    side_by_side,
)
from whisperbench.measure.alignment import Piece, align
from whisperbench.measure.joint_bootstrap import PairedTest
from whisperbench.results.keys import differing, fields_of
from whisperbench.results.links import Links
from whisperbench.results.names import METRICS
from whisperbench.results.run_record import RunRecord
from whisperbench.results.transcripts import StoredTranscripts, StoredUtterance

MOST_CHANGED = 20
LONGEST_TEXT = 4_000  # characters of one transcript: 30 s of fast speech are 600


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
    """An utterance in both runs, each aligned with the reference (the beginning of texts that are absurdly long)."""

    a: StoredUtterance
    b: StoredUtterance
    aligned: tuple[list[Piece], list[Piece]]

    @property
    def change(self) -> int:
        """Errors more (or, below 0, less) in the second run."""
        return _change(self.a, self.b)

    @property
    def said(self) -> str:
        """`+2 errors`."""
        return f"{self.change:+d} {'error' if abs(self.change) == 1 else 'errors'}"


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

    @property
    def outcome(self) -> str:
        """The outcome of the paired test in one sentence."""
        test = self.test
        if isinstance(test, str):
            return f"WER: no paired test, {test}."
        direction = "more errors" if test.difference > 0 else "fewer errors"
        verdict = f"significantly {direction}" if test.significant else "no significant change"
        limits = f", 95 % interval {test.low:+.2f} to {test.high:+.2f}" if math.isfinite(test.low) else ""
        return f"WER: {verdict}, {test.difference:+.2f} points{limits}, p = {test.p_value:.3f}."

    def parts(self, links: Links) -> list[Part]:
        """Both runs, the outcome, what may not be compared, and the tables."""
        a, b = (linked(run, links) for run in (self.a, self.b))
        parts: list[Part] = [Heading(["From ", a, " to ", b], 1), Paragraph(self.outcome), Paragraph(self.speed)]
        if self.not_comparable:
            parts += [Paragraph(self.warning, "Mind"), self.incomparable_fields]
        parts += [part for section in self.sections for part in section.parts]
        return [*parts, Paragraph(side_by_side((self.a, self.b), links))]

    @property
    def speed(self) -> str:
        """How much the throughput changed, in one sentence; by the noise of the repeats where there are any."""
        before, after = System((self.a,)), System((self.b,))
        was, is_now = before.median("reqs_per_sec"), after.median("reqs_per_sec")
        if was is None or is_now is None:
            return "Speed: not measured in both."
        change = f"{is_now:.2f} instead of {was:.2f} reqs/sec"
        noise = SpeedNoise.of((before, after), "reqs_per_sec") if self.a.speed_key == self.b.speed_key else None
        if noise is None:
            why = "no run was repeated" if self.a.speed_key == self.b.speed_key else "they may not be compared"
            return f"Speed: {change} ({100 * (is_now / was - 1):+.1f} %); no test, {why}."
        test = noise.test(after, before)
        direction = "faster" if test.change > 0 else "slower"
        verdict = f"significantly {direction}" if test.significant else "no significant change"
        limits = f"{test.change:+.1f} %, 95 % interval {test.low:+.1f} to {test.high:+.1f}"
        return f"Speed: {verdict}, {change} ({limits}), p = {test.p_value:.3f}."

    @property
    def warning(self) -> str:
        """What may not be compared, and that a table of the reasons follows."""
        what = "The rates may not" if self.wer_is_comparable else "Neither WER nor rates may"
        return f"{what} be compared: these fields differ."

    @property
    def incomparable_fields(self) -> Table:
        """The table of the reasons; no rows where everything may be compared."""
        return Table(["field", "from", "to"], [[name, *pair] for name, pair in self.not_comparable.items()])

    @property
    def sections(self) -> list[Section]:
        """Params that differ, and metrics."""
        params = Table(["param", "from", "to"], [[name, *pair] for name, pair in self.params.items()])
        rows = [[m.name, _precise(m.name, m.a), _precise(m.name, m.b), _signed(m.percent)] for m in self.metrics]
        metrics = Table(["metric", "from", "to", "change"], rows, frozenset({1, 2, 3}))
        return [Section("Params that differ", params, without_rows="None."), Section("Metrics", metrics)]


def difference(
    a: RunRecord,
    b: RunRecord,
    of_a: StoredTranscripts | None,
    of_b: StoredTranscripts | None,
    seed: int,
    normalize: Callable[[str], str],
) -> Difference:
    """Compare two runs and their transcripts; `normalize` is what the texts go through before they are aligned."""
    keys = [{**fields_of(run.accuracy_key or ""), **fields_of(run.speed_key or "")} for run in (a, b)]
    metrics = [
        MetricChange(name, a.metric(name), b.metric(name))
        for name in sorted({*a.metrics, *b.metrics}, key=_reading_order)
        if "/" not in name  # a series (of repeats, of the system): its last value says nothing of the run
    ]
    return Difference(
        a,
        b,
        not_comparable=differing(*keys),
        wer_is_comparable=a.accuracy_key == b.accuracy_key,
        params=differing(dict(sorted(a.params.items())), dict(sorted(b.params.items()))),
        metrics=tuple(m for m in metrics if m.a is not None or m.b is not None),
        test=paired_test(of_b, of_a, seed),
        utterances=tuple(_aligned(*pair, normalize) for pair in most_changed(of_a or (), of_b or ())),
    )


def most_changed(of_a: StoredTranscripts, of_b: StoredTranscripts) -> Iterable[tuple[StoredUtterance, StoredUtterance]]:
    """The utterances of both runs whose number of errors changed most, in either direction."""
    before = {utterance.utt_id: utterance for utterance in of_a}
    pairs = [(before[u.utt_id], u) for u in of_b if u.utt_id in before]
    changed = [(a, b) for a, b in pairs if _change(a, b) and a.reference is not None and a.reference == b.reference]
    return sorted(changed, key=lambda pair: (-abs(_change(*pair)), pair[0].utt_id))[:MOST_CHANGED]


def _reading_order(name: str) -> tuple[int, str]:
    """As in a run's summary; what is not ours comes last."""
    names = [metric.name for metric in METRICS]
    return names.index(name) if name in names else len(names), name


def _change(a: StoredUtterance, b: StoredUtterance) -> int:
    return (b.errors or 0) - (a.errors or 0)


def _aligned(a: StoredUtterance, b: StoredUtterance, normalize: Callable[[str], str]) -> ChangedUtterance:
    return ChangedUtterance(a, b, (aligned(a, normalize), aligned(b, normalize)))


def aligned(utterance: StoredUtterance, normalize: Callable[[str], str]) -> list[Piece]:
    """What was said beside what was heard, word by word, both normalised."""
    reference, hypothesis = (
        normalize(_cut(text)).split() for text in (utterance.reference or "", utterance.hypothesis)
    )
    return align(reference, hypothesis)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} …"


def _precise(name: str, value: float | None) -> str:
    whole = name in {metric.name for metric in METRICS if not metric.digits}
    return number(value, 0 if whole else 2 if value is None or abs(value) >= 1 or value == 0 else 4)


def _signed(percent: float | None) -> str:
    return NOT_MEASURED if percent is None else f"{percent:+.1f} %"
