"""How far a sweep is: every run that it wants, as rows of text, markdown and metrics."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from whisperbench.text import clock, markdown

State = Literal["waiting", "running", "done", "failed", "skipped"]

HEADINGS = ("configuration", "repeat", "state", "WER", "reqs/sec", "elapsed", "ETA", "run")
ENDED: tuple[State, ...] = ("done", "failed")


@dataclasses.dataclass(slots=True, eq=False)
class PlannedRun:
    """One run of the sweep and how it stands; `estimate_seconds` from earlier runs like it, None where there are none.

    `skipped` means that an earlier sweep has finished it: its metrics are that run's.  `doing` is what goes on inside
    one that runs.
    """

    name: str
    repeat: int
    estimate_seconds: float | None = None
    state: State = "waiting"
    seconds: float | None = None
    run_id: str | None = None
    failure: str | None = None
    doing: str = ""
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    where: str = ""


@dataclasses.dataclass(slots=True)
class Progress:
    """All runs, in the order in which they are measured, `at_once` side by side.

    `planned` is how many there will be (a search adds as it goes); `ended` when nothing will change any more.
    """

    runs: list[PlannedRun]
    planned: int = 0
    ended: bool = False
    at_once: int = 1

    def count(self, *states: State) -> int:
        """How many runs are in one of these states."""
        return sum(run.state in states for run in self.runs)

    @property
    def total(self) -> int:
        """How many runs there are and will be."""
        return max(self.planned, len(self.runs))

    @property
    def metrics(self) -> dict[str, float]:
        """The counts, as metrics of the sweep's run."""
        states: tuple[State, ...] = (*ENDED, "skipped")
        return {**{state: float(self.count(state)) for state in states}, "total": float(self.total)}

    @property
    def sentence(self) -> str:
        """`3 done, 1 failed, 4 skipped (finished before), 0 to do`."""
        ended = self.count(*ENDED, "skipped")
        return (
            f"{self.count('done')} done, {self.count('failed')} failed, "
            f"{self.count('skipped')} skipped (finished before), {self.total - ended} to do"
        )

    def expected_seconds(self, run: PlannedRun) -> float | None:
        """What a run takes: the median of this sweep's finished runs, of its own configuration where there is one."""
        done = [each for each in self.runs if each.state == "done" and each.seconds is not None]
        own = [each.seconds for each in done if each.name == run.name]
        seconds = [s for s in own or [each.seconds for each in done] if s is not None]
        if own or run.estimate_seconds is None:
            return statistics.median(seconds) if seconds else run.estimate_seconds
        return run.estimate_seconds

    @property
    def remaining_seconds(self) -> float | None:
        """Of everything that waits or runs; None where that cannot be told."""
        left = [self.remaining_of(run) for run in self.runs if run.state in ("waiting", "running")]
        more = self.total - len(self.runs)
        typical = self.expected_seconds(PlannedRun("", 0)) if more else 0.0
        known = [seconds for seconds in left if seconds is not None]
        if len(known) < len(left) or typical is None:
            return None
        return max([(sum(known) + more * typical) / self.at_once, *known])

    def remaining_of(self, run: PlannedRun) -> float | None:
        """Of one run that waits or runs; None where that cannot be told."""
        expected = self.expected_seconds(run)
        return None if expected is None else max(0.0, expected - (run.seconds or 0.0))

    def overdue(self, run: PlannedRun) -> str:
        """`0:30 late`: how much longer than expected a run takes already; empty where it does not."""
        expected = self.expected_seconds(run)
        late = 0.0 if expected is None or run.state != "running" else (run.seconds or 0.0) - expected
        return f"{clock(late)} late" if late >= 1 else ""

    def rows(self) -> list[tuple[str, ...]]:
        """Text under HEADINGS; the ETA of a waiting run counts everything before it."""
        rows: list[tuple[str, ...]] = []
        ahead: float | None = 0.0
        for run in self.runs:
            eta = ""
            if run.state in ("waiting", "running"):
                remaining = self.remaining_of(run)
                ahead = None if ahead is None or remaining is None else ahead + remaining
                # In parallel, a run begins when the slots have finished their part of the runs before it.
                unknown = ahead is None or remaining is None
                later = "unknown" if unknown else clock(max((ahead or 0.0) / self.at_once, remaining or 0.0))
                eta = self.overdue(run) or later
            where = f" on {run.where}" if run.where and run.state == "running" else ""
            why = run.failure.splitlines()[0] if run.failure else run.doing if run.state == "running" else ""
            state = f"{run.state}{where}: {why}" if why else f"{run.state}{where}"
            rate = (_figure(run.metrics.get(name)) for name in ("wer", "reqs_per_sec"))
            elapsed = "" if run.seconds is None else clock(run.seconds)
            rows.append((run.name, str(run.repeat), state, *rate, elapsed, eta, (run.run_id or "")[:8]))
        return rows

    def markdown(self, address_of: Callable[[str], str] | None = None) -> str:
        """The sentence and the table; with `address_of` a run id, each run is a link."""
        rows = []
        for run, row in zip(self.runs, self.rows(), strict=True):
            *cells, shortened = (markdown(cell) for cell in row)
            linked = f"[{shortened}]({address_of(run.run_id)})" if address_of and run.run_id else shortened
            rows.append(f"| {' | '.join((*cells, linked))} |")
        head = [f"| {' | '.join(HEADINGS)} |", "|---|--:|---|--:|--:|--:|--:|---|"]
        return "\n".join([self.sentence, "", *head, *rows]) + "\n"


def plain(row: Sequence[str]) -> str:
    """One row as a line of text, for where no table can be drawn again and again."""
    name, repeat, state, wer, rate, elapsed, eta, run = row
    figures = {"WER": wer, "reqs/sec": rate, "elapsed": elapsed, "ETA": eta, "run": run}
    return f"{name} #{repeat} {state}" + "".join(f" | {what} {text}" for what, text in figures.items() if text)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
