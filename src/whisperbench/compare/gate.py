"""Regression gate: a verdict on whether a candidate is worse than its baseline by more than is allowed.

Accuracy and throughput have three outcomes each.  The whole interval is within what is allowed (status 0), the whole
interval is beyond it (1), or neither is true (2), and the sentence then states what to run.  Up to three candidate runs
may be added one by one until the gate decides; a candidate at the limit then passes in at most 6 % of simulated cases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from whisperbench.compare.document import counted
from whisperbench.compare.groups import differences, in_words, incomparable, key_fields
from whisperbench.compare.systems import System
from whisperbench.config.benchmark import OPTIONS
from whisperbench.errors import ComparisonError
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


def gate_case(records: Sequence[RunRecord], baseline: str, candidate_ids: Sequence[str] = ()) -> tuple[System, System]:
    """The candidate and the baseline, whose runs are repeats of one configuration each.

    The candidate consists of the runs `candidate_ids`, or of the newest run and its repeats from the same commit.  The
    newest run must have the settings of the baseline; named runs may have others.

    Args:
        baseline: a run id or its first digits, which names the run and its repeats from the same commit; a run name,
            or a config digest (at least 8 digits).

    Raises:
        ComparisonError: the baseline or the candidate was not found, or they are not comparable.
    """
    newest_first = sorted(records, key=lambda run: (run.start_time, run.run_id), reverse=True)
    named = matching_runs(newest_first, baseline)
    if by_id := [run for run in named if _is_id_of(baseline, run)]:
        if not all(_is_repeat(run, by_id[0]) for run in by_id):
            ids = ", ".join(run.run_id for run in by_id[:MAX_LISTED])
            raise ComparisonError(f"The ids of several runs begin with {baseline!r}: {ids}. Write more digits.")
        named = [run for run in newest_first if _is_repeat(run, by_id[0])]
    if candidate_ids:
        candidates = [run for run in newest_first if run.run_id in candidate_ids]
        if missing := set(candidate_ids) - {run.run_id for run in candidates}:
            raise ComparisonError(
                f"runs: {', '.join(sorted(missing))} is not among the finished runs that were selected."
            )
    else:
        others = [run for run in newest_first if run not in by_id]
        candidates = [run for run in others if _is_repeat(run, others[0])]
    if not candidates:
        raise ComparisonError(f"No run was found to compare with the baseline {baseline!r}. Measure one first.")
    newest = candidates[0]
    for run in candidates:
        if reason := incomparable(run):
            raise ComparisonError(f"The candidate {_shown(run)} cannot be compared, because {reason}.")
        if _identity(run) != _identity(newest):
            raise ComparisonError(
                f"The candidate runs {newest.run_id} and {run.run_id} are not repeats of one configuration. "
                "Name runs with equal settings, hardware and versions."
            )
    earlier = [run for run in named if run not in candidates]
    if not earlier:
        raise ComparisonError(
            f"Every run of the baseline {baseline!r} belongs to the candidate {_shown(newest)}. "
            "Name the candidate with runs=<id>, or another baseline."
        )
    fields = key_fields if candidate_ids else _key_and_settings
    comparable = [run for run in earlier if not incomparable(run) and not differences(run, newest, fields)]
    if not comparable:
        reason = incomparable(earlier[0]) or in_words(differences(earlier[0], newest, fields))
        raise ComparisonError(
            f"Run {_shown(newest)} is not comparable with the baseline {described(baseline, earlier)}: {reason}. "
            "To judge a run with other settings, name it with runs=<id>."
        )
    expected = next((run for run in comparable if run.config_digest == newest.config_digest), comparable[0])
    repeats = [run for run in comparable if _identity(run) == _identity(expected)]
    return System(tuple(candidates)), System(tuple(repeats))


def matching_runs(records: Sequence[RunRecord], name: str) -> list[RunRecord]:
    """The runs with this id or first digits of it, this run name, or this config digest (at least 8 digits).

    Raises:
        ComparisonError: no run matches; the message lists runs.
    """
    digits = max(MIN_DIGEST_DIGITS, len(name))
    found = [run for run in records if _is_id_of(name, run) or name in (run.name, (run.config_digest or "")[:digits])]
    if not found:
        newest = {run.name: run for run in sorted(records, key=lambda run: run.start_time)}
        listed = [_shown(run) for run in reversed(newest.values())]
        more = f" and {len(listed) - MAX_LISTED} more" if len(listed) > MAX_LISTED else ""
        raise ComparisonError(
            f"{name!r} matches no run id, run name or config digest. Choose one of {', '.join(listed[:MAX_LISTED])}"
            f"{more}."
        )
    return found


def described(baseline: str, runs: Sequence[RunRecord]) -> str:
    """`'fp8' (3 runs, the newest fp8_large-v3 (1a2b3c4d))`: a baseline as the user wrote it, and its runs."""
    return f"{baseline!r} ({counted(len(runs), 'run')}, the newest {_shown(runs[0])})"


def judge(
    candidate: System,
    baseline: System,
    name: str,
    wer: PairedDifference | str | None,
    margin: float,
    max_slowdown: float,
) -> Verdict:
    """Decide whether the candidate is a regression.

    Args:
        name: the baseline as the user wrote it.
        wer: candidate − baseline, or the reason why they cannot be compared; None if neither has a WER.
        margin: difference of WER that is accepted, in points.
        max_slowdown: loss of throughput that is accepted, in percent.

    Raises:
        ComparisonError: the WER cannot be compared, or a throughput is missing.
    """
    names = {
        candidate: f"{candidate.label} ({candidate.newest.run_id[:8]})",
        baseline: f"the baseline {described(name, baseline.runs)}",
    }
    if isinstance(wer, str) or (candidate.wer is None) is not (baseline.wer is None):
        reason = wer if isinstance(wer, str) else "it was measured in only one of them"
        raise ComparisonError(
            f"The {candidate.error_rate} of {names[candidate]} is not comparable with that of {names[baseline]}: "
            f"{reason}."
        )
    rates = [rates for rates in candidate.by_run("reqs_per_sec") if rates]
    # With many runs of the baseline, one slow run of the candidate would hardly change the pooled noise.
    newest = [rates for rates in baseline.by_run("reqs_per_sec") if rates][: max(3, 2 * len(rates))]
    speed = rate_difference(newest, rates)
    if speed is None:
        system = baseline if rates else candidate
        if disturbed := system.newest.disturbed:
            raise ComparisonError(f"The speed of {names[system]} is not ranked, because {disturbed}. Measure it again.")
        raise ComparisonError(f"reqs_per_sec was not measured in {names[system]}.")
    outcomes = {"throughput": judge_speed(speed, max_slowdown)}
    if wer is not None:
        outcomes = {candidate.error_rate: judge_wer(wer, candidate, margin), **outcomes}
    status, opening = PASSED, "No regression"
    for found, words in ((UNDECIDED, "UNDECIDED for"), (REGRESSION, "REGRESSION of")):
        if of_status := [each for each, outcome in outcomes.items() if outcome.status == found]:
            status, opening = found, f"{words} {' and '.join(of_status)}"
    details = " ".join(each.sentence for each in outcomes.values())
    return Verdict(status, f"{opening}: {names[candidate]} against {names[baseline]}. {details}")


def judge_wer(wer: PairedDifference, candidate: System, margin: float) -> Verdict:
    """The outcome for the WER; a candidate that is worse by less than the margin passes."""
    loops = f", loops: {candidate.loops}" if candidate.loops else ""
    figures = f"{candidate.error_rate}: {wer.statement(candidate.unit)}, {wer.figures}{loops}."
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
    if speed.interval is None or speed.spread is None or n < MIN_BASELINE_RUNS or n + k < MIN_RUNS:
        return Verdict(UNDECIDED, f"{figures} Measure {_more_runs(n, k, MIN_BASELINE_RUNS)}.")
    if speed.interval.low >= -max_slowdown:
        return Verdict(PASSED, figures)
    needed = runs_needed(speed.spread, max_slowdown)
    if speed.interval.high < -max_slowdown:
        if k >= MIN_FAILING_RUNS:
            return Verdict(REGRESSION, figures)
        advice = "Measure 1 more run of the candidate, because one run is no proof of a regression"
    elif needed > MAX_RUNS_ADVISED:
        advice = (
            f"Runs scatter by {100 * speed.spread:.0f} %, which is too much for a limit of {max_slowdown:g} %. "
            "Measure on an idle machine, or allow more"
        )
    else:
        advice = f"Runs scatter by {100 * speed.spread:.1f} %. Measure {_more_runs(n, k, max(needed, k + 1))}"
    return Verdict(UNDECIDED, f"{figures} {advice}.")


def _more_runs(n: int, k: int, wanted: int) -> str:
    """`1 more run of the baseline and 2 more runs of the candidate`, so that each side has `wanted`."""
    sides = ((wanted - n, "baseline"), (wanted - k, "candidate"))
    return " and ".join(f"{counted(m, 'more run')} of the {side}" for m, side in sides if m > 0)


def _shown(run: RunRecord) -> str:
    return f"{run.name} ({run.run_id[:8]})"


def _is_id_of(text: str, run: RunRecord) -> bool:
    return len(text) >= MIN_ID_DIGITS and run.run_id.startswith(text)


def _identity(run: RunRecord) -> RunIdentity:
    return RunIdentity.of(run.params, run.tags)


def _key_and_settings(run: RunRecord) -> dict[str, str]:
    """The fields of the comparability keys, and the options of the config digest as requested."""
    options = {name: run.options.get(name, each.default_text) for name, each in OPTIONS.items() if each.identity}
    return {**options, **key_fields(run)}


def _is_repeat(run: RunRecord, newest: RunRecord) -> bool:
    """Whether a run repeats the newest one with the same code; without a recorded commit only the run itself counts."""
    same_code = COMMIT in newest.tags and all(run.tags.get(tag) == newest.tags.get(tag) for tag in (COMMIT, GIT_DIRTY))
    return run is newest or (same_code and _identity(run) == _identity(newest))
