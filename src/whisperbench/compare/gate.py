"""Regression gate: is a run worse than its baseline, beyond the noise and the allowed slowdown?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from whisperbench.compare.groups import key_fields
from whisperbench.compare.rank import rates_of, significantly_worse
from whisperbench.compare.systems import System, systems
from whisperbench.errors import ComparisonError
from whisperbench.results.keys import differing
from whisperbench.results.record import RunRecord
from whisperbench.stats.paired import PairedTest
from whisperbench.stats.rates import SpeedNoise

MIN_DIGEST_DIGITS = 8
"""Digits of a config digest that identify a configuration."""


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    regression: bool
    sentence: str


@dataclasses.dataclass(frozen=True, slots=True)
class GateCase:
    """A candidate and its baseline, whose runs are repeats of one configuration.

    `others` are further systems with the same speed key, from which the noise of rates is estimated.
    """

    candidate: RunRecord
    baseline: System
    others: tuple[System, ...] = ()


def gate_case(records: Sequence[RunRecord], baseline: str, candidate_id: str | None) -> GateCase:
    """The candidate (run `candidate_id`, or the newest run if that is None) and the runs of the baseline.

    `baseline` is a run id, a run name or a config digest (at least 8 digits).  Of the runs that match it, those that
    are comparable with the candidate are used.

    Raises:
        ComparisonError: the baseline or the candidate was not found, or they are not comparable.
    """
    newest_first = sorted(records, key=lambda r: (r.start_time, r.run_id), reverse=True)
    digits = max(MIN_DIGEST_DIGITS, len(baseline))
    matching = [r for r in newest_first if baseline in (r.run_id, r.name, (r.config_digest or "")[:digits])]
    if not matching:
        names = ", ".join(sorted({r.name for r in records})[:10])
        raise ComparisonError(
            f"baseline={baseline!r} matches no run id, run name or config digest. Run names: {names}."
        )
    candidates = [r for r in newest_first if r.run_id == candidate_id or (not candidate_id and r.run_id != baseline)]
    if not candidates:
        raise ComparisonError(f"No run was found to compare with the baseline {baseline!r}. Measure one first.")
    candidate = candidates[0]
    earlier = [r for r in matching if r is not candidate]
    if not earlier:
        raise ComparisonError(f"The only run of baseline {baseline!r} is the candidate itself ({candidate.run_id}).")
    comparable = [r for r in earlier if not _differences(r, candidate)]
    if not comparable:
        raise ComparisonError(
            f"Run {candidate.name} ({candidate.run_id}) is not comparable with the baseline {earlier[0].name} "
            f"({earlier[0].run_id}): {'; '.join(_differences(earlier[0], candidate))}."
        )
    # A single baseline run is also one of the others, so that the noise of its configuration includes all its runs.
    used = {candidate.run_id, *(r.run_id for r in comparable if len(comparable) > 1)}
    others = systems(r for r in records if r.speed_key == candidate.speed_key and r.run_id not in used)
    return GateCase(candidate, System(tuple(comparable)), others)


def judge(case: GateCase, test: PairedTest | str | None, max_slowdown: float) -> Verdict:
    """Decide whether the candidate is a regression.

    It is one if its WER is significantly higher than that of the baseline, or if the whole 95 % interval of the change
    of its throughput lies below -`max_slowdown` percent.

    Args:
        test: candidate − baseline, or the reason why the test is impossible; None if neither has a WER.

    Raises:
        ComparisonError: a WER cannot be tested, a throughput is missing, or the throughput is lower than allowed and
            the noise is unknown.
    """
    candidate = System((case.candidate,))
    names = f"{candidate.label} ({case.candidate.run_id[:8]})", f"the baseline {case.baseline.newest.name}"
    less_accurate, accuracy = _accuracy(candidate, case.baseline, test, names)
    slower, speed = _speed(candidate, case, max_slowdown, names)
    if not (less_accurate or slower):
        return Verdict(False, f"No regression of {names[0]} against {names[1]}: {accuracy}; {speed}.")
    what = " and ".join(["less accurate"] * less_accurate + ["slower"] * slower)
    return Verdict(True, f"REGRESSION: {names[0]} is {what} than {names[1]}: {accuracy}; {speed}.")


def _accuracy(
    candidate: System, baseline: System, test: PairedTest | str | None, names: tuple[str, str]
) -> tuple[bool, str]:
    """Whether the WER is significantly worse, and both values with the test."""
    if isinstance(test, str) or (candidate.wer is None) is not (baseline.wer is None):
        reason = test if isinstance(test, str) else "only one of them has a WER"
        raise ComparisonError(f"The WER of {names[0]} is not comparable with that of {names[1]}: {reason}.")
    if test is None:
        return False, "no WER was measured"
    result = "significant" if test.significant else "not significant"
    figures = f"WER {candidate.wer:.2f} instead of {baseline.wer:.2f} ({test.difference:+.2f} points"
    return significantly_worse(test), f"{figures}, paired test p = {test.p_value:.3f}: {result})"


def _speed(candidate: System, case: GateCase, max_slowdown: float, names: tuple[str, str]) -> tuple[bool, str]:
    """Whether the throughput is lower than allowed beyond the noise, and both values with the reason."""
    new, old = candidate.median("reqs_per_sec"), case.baseline.median("reqs_per_sec")
    if not new or not old:
        raise ComparisonError(f"reqs_per_sec was not measured in {names[1] if new else names[0]}.")
    figures, allowed = f"{new:.2f} reqs/sec instead of {old:.2f}", f"the allowed -{max_slowdown:g} %"
    noise = SpeedNoise.of([rates_of(candidate), rates_of(case.baseline)], list(map(rates_of, case.others)))
    if noise is None:
        change = 100 * (new / old - 1)
        if change < -max_slowdown:
            raise ComparisonError(
                f"The throughput of {names[0]} is not comparable with that of {names[1]}: it is {figures} "
                f"({change:+.1f} %, {allowed}), but no run was repeated on that GPU and data, so the noise is unknown. "
                "Measure the baseline again with repeats=3."
            )
        return False, f"{figures} ({change:+.1f} %: within {allowed}, its noise is unknown)"
    test = noise.test(0, 1)
    figures = f"{figures} ({test.change:+.1f} %, 95 % interval {test.low:+.1f} to {test.high:+.1f} %"
    if test.high < -max_slowdown:
        return True, f"{figures}: all of it below {allowed})"
    if test.change < -max_slowdown:
        return False, f"{figures}: below {allowed}, but the interval reaches above it, so it may be noise)"
    return False, f"{figures}: within {allowed})"


def _differences(expected: RunRecord, found: RunRecord) -> list[str]:
    """The fields of the comparability keys that differ, with both values; a missing key differs from all keys."""
    if None in (expected.accuracy_key, found.accuracy_key, expected.speed_key, found.speed_key):
        return ["a run has no accuracy key or no speed key"]
    changed = differing(key_fields(expected), key_fields(found))
    return [f"{name}: {new} instead of {old}" for name, (old, new) in changed.items()]
