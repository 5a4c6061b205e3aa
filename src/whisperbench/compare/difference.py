"""What changed between two runs: params, metrics, and the utterances whose number of errors changed most."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping

from whisperbench.compare.document import (
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
from whisperbench.compare.paired_tests import paired_test
from whisperbench.compare.systems import System
from whisperbench.measure.alignment import AlignedSpan, align
from whisperbench.measure.result import UtteranceResult
from whisperbench.results.keys import differing, fields_of
from whisperbench.results.links import Links
from whisperbench.results.names import METRICS
from whisperbench.results.record import RunRecord
from whisperbench.results.transcripts import StoredTranscripts
from whisperbench.stats.paired import PairedTest
from whisperbench.stats.rates import SpeedNoise

MAX_CHANGED = 20
MAX_CHARACTERS = 4_000  # of one transcript that is aligned: 30 s of fast speech are 600
DIGITS = {metric.name: metric.digits for metric in METRICS}


@dataclasses.dataclass(frozen=True, slots=True)
class MetricChange:
    """A metric of two runs; None = not measured."""

    name: str
    a: float | None
    b: float | None

    @property
    def percent(self) -> float | None:
        """The change in percent of `a`; None if one is missing or `a` is 0."""
        return 100 * (self.b / self.a - 1) if self.a and self.b is not None else None

    @property
    def row(self) -> list[str]:
        change = NOT_MEASURED if self.percent is None else f"{self.percent:+.1f} %"
        return [self.name, *(number(value, self._digits(value)) for value in (self.a, self.b)), change]

    def _digits(self, value: float | None) -> int:
        return 0 if DIGITS.get(self.name) == 0 else 4 if value is not None and 0 < abs(value) < 1 else 2


@dataclasses.dataclass(frozen=True, slots=True)
class ChangedUtterance:
    """An utterance in both runs, each aligned with the reference."""

    a: UtteranceResult
    b: UtteranceResult
    aligned: tuple[list[AlignedSpan], list[AlignedSpan]]

    @property
    def change(self) -> int:
        """Additional errors of the second run."""
        return _change(self.a, self.b)


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """An utterance aligned with its reference, and its audio as a data: address of a WAV."""

    utterance: UtteranceResult
    pieces: list[AlignedSpan]
    audio: str


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """From run `a` to run `b`.

    `not_comparable` holds the fields of the two keys that differ; unless `wer_is_comparable` the WER is affected too.
    `test` is the paired test of the WER, b − a, or the reason why it is missing.
    """

    a: RunRecord
    b: RunRecord
    not_comparable: Mapping[str, tuple[str, str]]
    wer_is_comparable: bool
    params: Mapping[str, tuple[str, str]]
    metrics: tuple[MetricChange, ...]
    test: PairedTest | str
    utterances: tuple[ChangedUtterance, ...]

    def parts(self, links: Links) -> list[Part]:
        """Both runs, the outcome, the fields that may not be compared, params and metrics."""
        a, b = (linked(run, links) for run in (self.a, self.b))
        parts: list[Part] = [Heading(["From ", a, " to ", b], 1), Paragraph(self.outcome), Paragraph(self.speed)]
        if self.not_comparable:
            parts += [Paragraph(self.warning, "Warning"), _changes("field", self.not_comparable)]
        parts += [part for section in self.sections for part in section.parts]
        return [*parts, Paragraph(side_by_side((self.a, self.b), links))]

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

    @property
    def speed(self) -> str:
        """The change of the throughput in one sentence, tested if one of the runs was repeated."""
        before, after = System((self.a,)), System((self.b,))
        was, is_now = before.median("reqs_per_sec"), after.median("reqs_per_sec")
        if was is None or is_now is None:
            return "Speed: not measured in both."
        change = f"{is_now:.2f} instead of {was:.2f} reqs/sec"
        comparable = self.a.speed_key == self.b.speed_key
        noise = SpeedNoise.of((before, after), "reqs_per_sec") if comparable else None
        if noise is None:
            reason = "no run was repeated" if comparable else "they may not be compared"
            return f"Speed: {change} ({100 * (is_now / was - 1):+.1f} %); no test, {reason}."
        test = noise.test(after, before)
        direction = "faster" if test.change > 0 else "slower"
        verdict = f"significantly {direction}" if test.significant else "no significant change"
        limits = f"{test.change:+.1f} %, 95 % interval {test.low:+.1f} to {test.high:+.1f}"
        return f"Speed: {verdict}, {change} ({limits}), p = {test.p_value:.3f}."

    @property
    def warning(self) -> str:
        what = "The rates may not" if self.wer_is_comparable else "Neither WER nor rates may"
        return f"{what} be compared, because these fields differ."

    @property
    def sections(self) -> list[Section]:
        metrics = Table(["metric", "from", "to", "change"], [m.row for m in self.metrics], frozenset({1, 2, 3}))
        return [
            Section("Params that differ", _changes("param", self.params), without_rows="None."),
            Section("Metrics", metrics),
        ]


def difference(
    a: RunRecord,
    b: RunRecord,
    of_a: StoredTranscripts | None,
    of_b: StoredTranscripts | None,
    seed: int,
    normalize: Callable[[str], str],
) -> Difference:
    """Compare two runs and their transcripts; `normalize` is applied to the texts before they are aligned."""
    keys = [{**fields_of(run.accuracy_key or ""), **fields_of(run.speed_key or "")} for run in (a, b)]
    names = dict.fromkeys((*DIGITS, *sorted({*a.metrics, *b.metrics})))
    metrics = [MetricChange(n, a.metric(n), b.metric(n)) for n in names if "/" not in n]  # a/b is a series over time
    return Difference(
        a,
        b,
        not_comparable=differing(*keys),
        wer_is_comparable=a.accuracy_key == b.accuracy_key,
        params=differing(dict(sorted(a.params.items())), dict(sorted(b.params.items()))),
        metrics=tuple(m for m in metrics if (m.a, m.b) != (None, None)),
        test=paired_test(of_b, of_a, seed),
        utterances=tuple(
            ChangedUtterance(x, y, (aligned(x, normalize), aligned(y, normalize)))
            for x, y in most_changed(of_a or (), of_b or ())
        ),
    )


def most_changed(of_a: StoredTranscripts, of_b: StoredTranscripts) -> Iterable[tuple[UtteranceResult, UtteranceResult]]:
    """The utterances of both runs whose number of errors changed most, in either direction."""
    before = {utterance.utt_id: utterance for utterance in of_a}
    pairs = [(before[u.utt_id], u) for u in of_b if u.utt_id in before]
    changed = [(a, b) for a, b in pairs if _change(a, b) and a.reference is not None and a.reference == b.reference]
    return sorted(changed, key=lambda pair: (-abs(_change(*pair)), pair[0].utt_id))[:MAX_CHANGED]


def aligned(utterance: UtteranceResult, normalize: Callable[[str], str]) -> list[AlignedSpan]:
    """Reference and hypothesis, normalised and aligned word by word."""
    texts = (utterance.reference or "", utterance.hypothesis)
    reference, hypothesis = (
        normalize(t if len(t) <= MAX_CHARACTERS else f"{t[:MAX_CHARACTERS]} …").split() for t in texts
    )
    return align(reference, hypothesis)


def worst_first(stored: StoredTranscripts) -> list[str]:
    """The ids of the utterances with errors, most errors first."""
    wrong = [u for u in stored if u.errors and u.reference is not None]
    return [u.utt_id for u in sorted(wrong, key=lambda u: (-(u.errors or 0), u.utt_id))]


def clips(stored: StoredTranscripts, wavs: Mapping[str, bytes], normalize: Callable[[str], str]) -> tuple[Clip, ...]:
    """The utterances of `wavs` (by id), in its order."""
    by_id = {u.utt_id: u for u in stored}
    return tuple(Clip(u := by_id[utt_id], aligned(u, normalize), playable(wav)) for utt_id, wav in wavs.items())


def playable(wav: bytes) -> str:
    """A WAV as a data: address."""
    return f"data:audio/wav;base64,{base64.b64encode(wav).decode()}"


def _changes(name: str, changes: Mapping[str, tuple[str, str]]) -> Table:
    return Table([name, "from", "to"], [[field, *pair] for field, pair in changes.items()])


def _change(a: UtteranceResult, b: UtteranceResult) -> int:
    return (b.errors or 0) - (a.errors or 0)
