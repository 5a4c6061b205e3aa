"""The regression gate: is a run worse than its baseline, by more than chance and by how much?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from whisperbench.compare.rank import significantly_worse
from whisperbench.compare.systems import System, systems
from whisperbench.errors import ComparisonError
from whisperbench.results.keys import differing, fields_of
from whisperbench.results.record import RunRecord
from whisperbench.stats.paired import PairedTest
from whisperbench.stats.rates import RateTest, SpeedNoise


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    regression: bool
    sentence: str


@dataclasses.dataclass(frozen=True, slots=True)
class GateCase:
    """A candidate and the runs that it is judged against: repeats of one system.

    `others` are further systems of the same speed key, which tell how noisy rates are.
    """

    candidate: RunRecord
    baseline: System
    others: tuple[System, ...] = ()


def gate_case(records: Sequence[RunRecord], baseline: str, candidate_id: str | None) -> GateCase:
    """The candidate (the newest run, or the one named) and its baseline.

    `baseline` is a run id, a run's name or a config digest (its first 8 digits do); of the runs that
    it names, those that may be compared with the candidate count.

    Raises:
        ComparisonError: there is no such baseline or candidate, or they may not be compared.
    """
    named = [r for r in records if baseline in (r.run_id, r.name) or _is_digest_of(baseline, r)]
    if not named:
        names = ", ".join(sorted({r.name for r in records})[:10])
        raise ComparisonError(f"baseline={baseline!r} is no run's id, name or config digest. Names found: {names}.")
    rivals = [r for r in records if r.run_id == candidate_id or (candidate_id is None and r.run_id != baseline)]
    if not rivals:
        raise ComparisonError(f"There is no run to judge against the baseline {baseline!r}: measure one first.")
    candidate = max(rivals, key=lambda r: (r.start_time, r.run_id))
    others = sorted((r for r in named if r is not candidate), key=lambda r: (r.start_time, r.run_id), reverse=True)
    if not others:
        raise ComparisonError(f"The only run of baseline {baseline!r} is the candidate itself ({candidate.run_id}).")
    comparable = [r for r in others if not _differences(r, candidate)]
    if not comparable:
        found = "; ".join(_differences(others[0], candidate))
        raise ComparisonError(
            f"Run {candidate.name} ({candidate.run_id}) may not be compared with the baseline {others[0].name} "
            f"({others[0].run_id}): {found}."
        )
    # A lone baseline run stays: with its configuration's other runs it tells how far repeats scatter.
    judged = {candidate.run_id, *(r.run_id for r in comparable if len(comparable) > 1)}
    beside = systems(r for r in records if r.speed_key == candidate.speed_key and r.run_id not in judged)
    return GateCase(candidate, System(tuple(comparable)), beside)


def judge(found: GateCase, test: PairedTest | str | None, max_slowdown: float) -> Verdict:
    """Worse is: a WER significantly above the baseline's, or a throughput more than `max_slowdown` percent
    below it even at the near end of the change's 95 % interval.

    Args:
        test: candidate − baseline, or why there is none; None where no WER was measured on either side.

    Raises:
        ComparisonError: both have a WER and it cannot be tested, or only one has; or a throughput is missing, or is
            lower than allowed while its noise is unknown.
    """
    candidate, baseline = System((found.candidate,)), found.baseline
    names = f"{candidate.label} ({found.candidate.run_id[:8]})", f"the baseline {baseline.newest.name}"
    if isinstance(test, str) or (candidate.wer is None) is not (baseline.wer is None):
        reason = test if isinstance(test, str) else "only one of them has a WER"
        raise ComparisonError(f"The WER of {names[0]} may not be compared with that of {names[1]}: {reason}.")
    rate, usual = candidate.median("reqs_per_sec"), baseline.median("reqs_per_sec")
    if rate is None or usual is None or min(rate, usual) <= 0:
        missing = names[0] if rate is None or rate <= 0 else names[1]
        raise ComparisonError(f"reqs_per_sec was not measured in {missing}.")
    noise = SpeedNoise.of((candidate, baseline), "reqs_per_sec", found.others)
    change = noise.test(candidate, baseline) if noise else None
    speed = f"{rate:.2f} reqs/sec instead of {usual:.2f}"
    if change is None and 100 * (rate / usual - 1) < -max_slowdown:
        raise ComparisonError(
            f"{names[0]} has {speed} of {names[1]}: {100 * (rate / usual - 1):+.1f} %, allowed -{max_slowdown:g} %. "
            "No run was repeated on that GPU and data, so the noise is unknown and the rates may not be compared. "
            "Measure the baseline again with repeats=3."
        )
    slower = change is not None and change.high < -max_slowdown
    worse = test is not None and significantly_worse(test)
    said = f"{_accuracy(candidate, baseline, test)}; {speed} ({_rule(change, rate, usual, max_slowdown)})"
    if not (worse or slower):
        return Verdict(False, f"No regression of {names[0]} against {names[1]}: {said}.")
    which = " and ".join(text for text, is_so in (("less accurate", worse), ("slower", slower)) if is_so)
    return Verdict(True, f"REGRESSION: {names[0]} is {which} than {names[1]}: {said}.")


def _accuracy(candidate: System, baseline: System, test: PairedTest | None) -> str:
    """Both WERs, and the rule that decided."""
    if test is None:
        return "no WER was measured"
    rule = "significant" if test.significant else "within chance"
    figures = f"WER {candidate.wer:.2f} instead of {baseline.wer:.2f}"
    return f"{figures} ({test.difference:+.2f} points, paired test p = {test.p_value:.3f}: {rule})"


def _rule(change: RateTest | None, rate: float, usual: float, max_slowdown: float) -> str:
    """The change of the rate, and the rule that decided."""
    allowed = f"the allowed -{max_slowdown:g} %"
    if change is None:
        return f"{100 * (rate / usual - 1):+.1f} %: within {allowed}, its noise is not known"
    figures = f"{change.change:+.1f} %, 95 % interval {change.low:+.1f} to {change.high:+.1f} %"
    if change.high < -max_slowdown:
        return f"{figures}: all of it below {allowed}"
    if change.change < -max_slowdown:
        return f"{figures}: below {allowed}, but the interval reaches above it, so it may be noise"
    return f"{figures}: within {allowed}"


def _is_digest_of(text: str, record: RunRecord) -> bool:
    return len(text) >= 8 and record.config_digest is not None and record.config_digest.startswith(text)


def _differences(expected: RunRecord, found: RunRecord) -> tuple[str, ...]:
    """The fields of both keys that differ, each with its two values; a missing key differs from everything."""
    if None in (expected.accuracy_key, found.accuracy_key, expected.speed_key, found.speed_key):
        return ("a run has no accuracy key or no speed key",)
    was, is_now = ({**fields_of(run.accuracy_key or ""), **fields_of(run.speed_key or "")} for run in (expected, found))
    return tuple(f"{name}: {new} instead of {old}" for name, (old, new) in differing(was, is_now).items())
