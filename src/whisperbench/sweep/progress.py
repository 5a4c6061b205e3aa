"""Runs of a sweep and their state, as table rows, markdown and estimates."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from typing import Literal

from whisperbench.compare.document import Cell, Linked, Table
from whisperbench.compare.render import as_markdown
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.results.names import error_metric
from whisperbench.text import clock

State = Literal["waiting", "running", "done", "failed", "skipped", "refused"]

HEADINGS = ("configuration", "repeat", "state", "WER/CER", "reqs/sec", "elapsed", "run")
NUMERIC = ("repeat", "WER/CER", "reqs/sec", "elapsed")
STATE = HEADINGS.index("state")
ENDED: tuple[State, ...] = ("done", "failed", "skipped", "refused")


@dataclasses.dataclass(slots=True, eq=False)
class PlannedRun:
    """One run of a sweep: a configuration and the number of its repeat, counted from 1.

    A skipped run was finished by an earlier sweep and has its metrics.  A refused one cannot be measured on this
    hardware.  `estimate_seconds` comes from earlier runs (None: unknown), `log_line` is the last line of the log.
    """

    config: BenchmarkConfig
    name: str
    repeat: int = 1
    estimate_seconds: float | None = None
    state: State = "waiting"
    seconds: float | None = None
    run_id: str | None = None
    failure: str | None = None
    log_line: str = ""
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    device: str = ""

    @property
    def row(self) -> tuple[str, ...]:
        """Cells under HEADINGS; the state is followed by the cause of a failure, or by device and log line."""
        state, detail = str(self.state), (self.failure or "").partition("\n")[0]
        if self.state == "running":
            state, detail = f"{state} on {self.device}" if self.device else state, self.log_line
        wer, rate = (
            f"{self.metrics[name]:.2f}" if name in self.metrics else ""
            for name in (error_metric(self.metrics), "reqs_per_sec")
        )
        elapsed = "" if self.seconds is None else clock(self.seconds)
        state = f"{state}: {detail}" if detail else state
        return self.name, str(self.repeat), state, wer, rate, elapsed, (self.run_id or "")[:8]


@dataclasses.dataclass(slots=True)
class Progress:
    """All runs, in the order in which they start on `slots` devices.

    A search adds runs one by one, so `planned` is their maximum number.  `ended` is set after the last change.
    """

    runs: list[PlannedRun]
    planned: int = 0
    slots: int = 1
    ended: bool = False

    def count(self, *states: State) -> int:
        """Number of runs in one of these states."""
        return sum(run.state in states for run in self.runs)

    @property
    def total(self) -> int:
        """Number of runs, including those that a search has not added yet."""
        return max(self.planned, len(self.runs))

    @property
    def sentence(self) -> str:
        """`3 done, 1 failed, 4 skipped (finished before), 0 to do`, and the number of refused runs if there are any."""
        done, failed, skipped, refused = (self.count(state) for state in ENDED)
        to_do = self.total - self.count(*ENDED)
        counts = f"{done} done, {failed} failed, {skipped} skipped (finished before)"
        return f"{counts}, {f'{refused} refused, ' if refused else ''}{to_do} to do"

    @property
    def causes(self) -> list[str]:
        """Each cause of failed and refused runs once, with the names of the runs: `a, b: the disk is full`."""
        names: dict[str, dict[str, None]] = {}
        for run in self.runs:
            if run.failure:
                names.setdefault(run.failure, {})[run.name] = None
        return [f"{', '.join(of_cause)}: {cause}" for cause, of_cause in names.items()]

    @property
    def remaining_seconds(self) -> float | None:
        """Seconds until all runs have ended; None if the duration of a run is unknown.

        A run is expected to take as long as its estimate, else as the median of the runs of this sweep.
        """
        done = [run.seconds for run in self.runs if run.state == "done" and run.seconds is not None]
        if not done and self.planned:
            done = [run.estimate_seconds for run in self.runs if run.estimate_seconds is not None]
        typical = statistics.median(done) if done else None
        left: list[float | None] = [typical] * (self.total - len(self.runs))  # runs that a search will add
        for run in self.runs:
            if run.state not in ENDED:
                expected = typical if run.estimate_seconds is None else run.estimate_seconds
                left.append(None if expected is None else max(0.0, expected - (run.seconds or 0.0)))
        known = [seconds for seconds in left if seconds is not None]
        return max([sum(known) / self.slots, *known]) if len(known) == len(left) else None

    def markdown(self, address_of: Callable[[str], str] | None = None) -> str:
        """The summary and a table without causes; `address_of` returns the address of a run by its id."""
        rows: list[list[Cell]] = []
        for run in self.runs:
            name, repeat, _, *figures, run_id = run.row
            link = Linked(run_id, address_of(run.run_id)) if address_of and run.run_id else run_id
            rows.append([name, repeat, run.state, *figures, link])
        return f"{self.sentence}\n\n{as_markdown([Table(HEADINGS, rows, frozenset(map(HEADINGS.index, NUMERIC)))])}"
