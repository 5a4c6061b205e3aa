"""Regression gate: a verdict on whether a candidate is worse than its baseline by more than is allowed.

Accuracy and throughput have three outcomes each.  The whole interval is within what is allowed (status 0), the whole
interval is beyond it (1), or neither is true (2), and the sentence then states what to run.  Up to three candidate runs
may be added one by one until the gate decides; a candidate at the limit then passes in at most 6 % of simulated cases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from whisperbench.compare.groups import key_fields, shown_field
from whisperbench.compare.systems import System
from whisperbench.compare.verdicts import loops_of
from whisperbench.config.benchmark import OPTIONS
from whisperbench.errors import ComparisonError
from whisperbench.results.keys import differing
from whisperbench.results.names import COMMIT, GIT_DIRTY
from whisperbench.results.record import RunIdentity, RunRecord
from whisperbench.stats.paired import PairedDifference
from whisperbench.stats.rates import RateDifference, rate_difference, runs_needed

MIN_ID_DIGITS = 4
"""Minimum number of digits of a run id that select a run."""
MIN_DIGEST_DIGITS = 8
"""Minimum number of digits of a config digest that select a configuration."""
MIN_BASELINE_RUNS, MIN_RUNS = 2, 4
"""Minimum numbers of runs of the baseline, and of both sides together, for an outcome of the throughput."""
MIN_FAILING_RUNS = 2
"""Minimum number of candidate runs for a regression, because one run is an outlier in 4 % of equal pairs."""
MAX_RUNS_ADVISED = 20
MAX_LISTED = 8

PASSED, REGRESSION, UNDECIDED = 0, 1, 2


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """`status`: 0 no regression beyond what is allowed, 1 regression, 2 undecided."""

    status: int
    sentence: str


@dataclasses.dataclass(frozen=True, slots=True)
class GateCase:
    """A candidate and its baseline; the runs of each are repeats of one configuration, newest first."""

    candidate: System
    baseline: System


def gate_case(records: Sequence[RunRecord], baseline: str, candidate_ids: Sequence[str] = ()) -> GateCase:
    """The runs of the candidate and of the baseline.

    The candidate consists of the runs `candidate_ids`, or of the newest run and its repeats from the same commit.  The
    newest run must have the settings of the baseline; named runs may have others.

    Args:
        baseline: a run id or its first digits, which names the run and its repeats from the same commit; a run name,
            or a config digest (at least 8 digits).

    Raises:
        ComparisonError: the baseline or the candidate was not found, or they are not comparable.
    """
    newest_first = sorted(records, key=lambda run: (run.start_time, run.run_id), reverse=True)
    matching = matching_runs(newest_first, baseline)
    by_id = [run for run in matching if _is_id_of(baseline, run)]
    if candidate_ids:
        candidates = [run for run in newest_first if run.run_id in candidate_ids]
        if missing := set(candidate_ids) - {run.run_id for run in candidates}:
            raise ComparisonError(
                f"runs: {', '.join(sorted(missing))} is not among the finished runs that were selected."
            )
    else:
        newest = next((run for run in newest_first if run not in by_id), None)
        candidates = [run for run in newest_first if newest and run not in by_id and _is_repeat(run, newest)]
    if not candidates:
        raise ComparisonError(f"No run was found to compare with the baseline {baseline!r}. Measure one first.")
    newest = candidates[0]
    if other := next((run for run in candidates if _identity(run) != _identity(newest)), None):
        raise ComparisonError(
            f"The candidate runs {newest.run_id} and {other.run_id} are not repeats of one configuration. "
            "Name runs with equal settings, hardware and versions."
        )
    baselines = [run for run in newest_first if _is_repeat(run, by_id[0])] if by_id else matching
    earlier = [run for run in baselines if run not in candidates]
    if not earlier:
        raise ComparisonError(
            f"Every run of the baseline {baseline!r} belongs to the candidate {newest.name} ({newest.run_id}). "
            "Name the candidate with runs=<id>, or another baseline."
        )
    comparable = [run for run in earlier if not _differences(run, newest)]
    if not comparable:
        raise ComparisonError(
            f"Run {newest.name} ({newest.run_id}) is not comparable with the baseline {earlier[0].name} "
            f"({earlier[0].run_id}): {'; '.join(_differences(earlier[0], newest))}."
        )
    equal = [run for run in comparable if run.config_digest == newest.config_digest]
    if not equal and not candidate_ids:
        changed = differing(_settings(comparable[0]), _settings(newest))
        settings = "; ".join(f"{name}: {new} instead of {old}" for name, (old, new) in changed.items())
        raise ComparisonError(
            f"The newest run {newest.name} ({newest.run_id}) has other settings than the baseline "
            f"{comparable[0].name}: {settings}. Name the candidate with runs=<id>."
        )
    expected = (equal or comparable)[0]
    repeats = [run for run in comparable if _identity(run) == _identity(expected)]
    return GateCase(System(tuple(candidates)), System(tuple(repeats)))


def matching_runs(records: Sequence[RunRecord], name: str) -> list[RunRecord]:
    """The runs with this id or first digits of it, this run name, or this config digest (at least 8 digits).

    Raises:
        ComparisonError: no run matches; the message lists runs.
    """
    digits = max(MIN_DIGEST_DIGITS, len(name))
    found = [run for run in records if _is_id_of(name, run) or name in (run.name, (run.config_digest or "")[:digits])]
    if not found:
        newest = {run.name: run for run in sorted(records, key=lambda run: run.start_time)}
        listed = [f"{run.name} ({run.run_id[:8]})" for run in reversed(newest.values())]
        more = f" and {len(listed) - MAX_LISTED} more" if len(listed) > MAX_LISTED else ""
        raise ComparisonError(
            f"{name!r} matches no run id, run name or config digest. Choose one of {', '.join(listed[:MAX_LISTED])}"
            f"{more}."
        )
    return found


def judge(case: GateCase, wer: PairedDifference | str | None, margin: float, max_slowdown: float) -> Verdict:
    """Decide whether the candidate is a regression.

    Args:
        wer: candidate − baseline, or the reason why they cannot be compared; None if neither has a WER.
        margin: difference of WER that is accepted, in points.
        max_slowdown: loss of throughput that is accepted, in percent.

    Raises:
        ComparisonError: the WER cannot be compared, or a throughput is missing.
    """
    candidate, baseline = case.candidate, case.baseline
    names = f"{candidate.label} ({candidate.newest.run_id[:8]})", f"the baseline {baseline.newest.name}"
    if isinstance(wer, str) or (candidate.wer is None) is not (baseline.wer is None):
        reason = wer if isinstance(wer, str) else "it was measured in only one of them"
        raise ComparisonError(
            f"The {candidate.error_rate} of {names[0]} is not comparable with that of {names[1]}: {reason}."
        )
    speed = rate_difference(*_counted_rates(case))
    if speed is None:
        name, system = (names[1], baseline) if candidate.median("reqs_per_sec") else (names[0], candidate)
        if disturbed := system.newest.disturbed:
            raise ComparisonError(f"The speed of {name} is not ranked, because {disturbed}. Measure it again.")
        raise ComparisonError(f"reqs_per_sec was not measured in {name}.")
    outcomes = {"throughput": judge_speed(speed, max_slowdown)}
    if wer is not None:
        outcomes = {candidate.error_rate: judge_wer(wer, candidate, margin), **outcomes}
    by_status = {status: [n for n, each in outcomes.items() if each.status == status] for status in (1, 2)}
    if by_status[REGRESSION]:
        status, opening = REGRESSION, f"REGRESSION of {' and '.join(by_status[REGRESSION])}"
    elif by_status[UNDECIDED]:
        status, opening = UNDECIDED, f"UNDECIDED for {' and '.join(by_status[UNDECIDED])}"
    else:
        status, opening = PASSED, "No regression"
    details = " ".join(each.sentence for each in outcomes.values())
    return Verdict(status, f"{opening}: {names[0]} against {names[1]}. {details}")


def judge_wer(wer: PairedDifference, candidate: System, margin: float) -> Verdict:
    """The outcome for the WER; a candidate that is worse by less than the margin passes."""
    loops = loops_of(candidate)
    figures = (
        f"{candidate.error_rate}: {wer.statement(candidate.unit)}, {wer.figures}{f', loops: {loops}' if loops else ''}."
    )
    if wer.keeps_margin:
        return Verdict(PASSED, figures)
    if wer.low > margin:
        return Verdict(REGRESSION, figures)
    return Verdict(UNDECIDED, f"{figures} Measure both on a larger corpus.")


def judge_speed(speed: RateDifference, max_slowdown: float) -> Verdict:
    """The outcome for the throughput, and what to run if it is undecided."""
    n, k = speed.runs
    figures = (
        f"Throughput: {speed.candidate:.2f} reqs/sec instead of {speed.baseline:.2f} ({speed.change:+.1f} %, "
        f"{speed.limits}, {k} against {n} runs, allowed -{max_slowdown:g} %)."
    )
    enough = n >= MIN_BASELINE_RUNS and n + k >= MIN_RUNS
    if speed.interval is None or speed.spread is None or not enough:
        return Verdict(UNDECIDED, f"{figures} Measure {_more_runs(n, k, MIN_BASELINE_RUNS)}.")
    if speed.interval.low >= -max_slowdown:
        return Verdict(PASSED, figures)
    if speed.interval.high < -max_slowdown:
        if k >= MIN_FAILING_RUNS:
            return Verdict(REGRESSION, figures)
        return Verdict(
            UNDECIDED, f"{figures} Measure 1 more run of the candidate, because one run is no proof of a regression."
        )
    needed = runs_needed(speed.spread, max_slowdown)
    if needed > MAX_RUNS_ADVISED:
        advice = (
            f"Runs scatter by {100 * speed.spread:.0f} %, which is too much for a limit of {max_slowdown:g} %. "
            "Measure on an idle machine, or allow more"
        )
    else:
        advice = f"Runs scatter by {100 * speed.spread:.1f} %. Measure {_more_runs(n, k, max(needed, k + 1))}"
    return Verdict(UNDECIDED, f"{figures} {advice}.")


def _counted_rates(case: GateCase) -> tuple[list[tuple[float, ...]], list[tuple[float, ...]]]:
    """The rates of the baseline and of the candidate by run.

    Only the newest runs of the baseline are used, at most twice as many as the candidate has, or three if that is more.
    With many runs of the baseline, one slow run of the candidate would hardly change the pooled noise.
    """
    candidate = [rates for rates in case.candidate.by_run("reqs_per_sec") if rates]
    baseline = [rates for rates in case.baseline.by_run("reqs_per_sec") if rates]
    return baseline[: max(3, 2 * len(candidate))], candidate


def _more_runs(n: int, k: int, wanted: int) -> str:
    """`1 more run of the baseline and 2 more runs of the candidate`, so that each side has `wanted`."""
    sides = ((wanted - n, "baseline"), (wanted - k, "candidate"))
    return " and ".join(f"{m} more run{'s' * (m > 1)} of the {side}" for m, side in sides if m > 0)


def _is_id_of(text: str, run: RunRecord) -> bool:
    return len(text) >= MIN_ID_DIGITS and run.run_id.startswith(text)


def _identity(run: RunRecord) -> RunIdentity:
    return RunIdentity.of(run.params, run.tags)


def _settings(run: RunRecord) -> dict[str, str]:
    """The options of the config digest as requested."""
    return {name: run.options.get(name, each.default_text) for name, each in OPTIONS.items() if each.identity}


def _is_repeat(run: RunRecord, newest: RunRecord) -> bool:
    """Whether a run repeats the newest one with the same code; without a recorded commit only the run itself counts."""
    same_code = COMMIT in newest.tags and all(run.tags.get(tag) == newest.tags.get(tag) for tag in (COMMIT, GIT_DIRTY))
    return run is newest or (same_code and _identity(run) == _identity(newest))


def _differences(expected: RunRecord, found: RunRecord) -> list[str]:
    """The fields of the comparability keys that differ, with both values; a missing key differs from all keys."""
    if None in (expected.accuracy_key, found.accuracy_key, expected.speed_key, found.speed_key):
        return ["a run has no accuracy key or no speed key"]
    changed = differing(key_fields(expected), key_fields(found))
    return [
        f"{name}: {shown_field(found, name, new)} instead of {shown_field(expected, name, old)}"
        for name, (old, new) in changed.items()
    ]
