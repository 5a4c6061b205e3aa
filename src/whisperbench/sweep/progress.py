"""State of all runs of a sweep, as table rows, markdown and metrics."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from whisperbench.compare.document import Cell, Linked, Table
from whisperbench.compare.render import as_markdown
from whisperbench.results.names import error_metric
from whisperbench.text import clock

State = Literal["waiting", "running", "done", "failed", "skipped", "refused"]

HEADINGS = ("configuration", "repeat", "state", "WER/CER", "reqs/sec", "elapsed", "run")
NUMERIC = ("repeat", "WER/CER", "reqs/sec", "elapsed")
ENDED: tuple[State, ...] = ("done", "failed", "skipped", "refused")


@dataclasses.dataclass(slots=True, eq=False)
class PlannedRun:
    """One run of the sweep; `estimate_seconds` comes from similar earlier runs (None: unknown).

    A skipped run was finished by an earlier sweep and has its metrics.  A refused one cannot be measured on this
    hardware.  `log_line` is the last line of the log.
    """

    name: str
    repeat: int
    estimate_seconds: float | None = None
    state: State = "waiting"
    seconds: float | None = None
    run_id: str | None = None
    failure: str | None = None
    log_line: str = ""
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    device: str = ""


@dataclasses.dataclass(slots=True)
class Progress:
    """All runs, in the order in which they start on `slots` devices.

    A search adds runs one by one, so `planned` is their maximum number.  `ended` is set after the last change.
    """

    runs: list[PlannedRun]
    planned: int = 0
    ended: bool = False
    slots: int = 1

    def count(self, *states: State) -> int:
        """Number of runs in one of these states."""
        return sum(run.state in states for run in self.runs)

    @property
    def total(self) -> int:
        """Number of runs, including those that a search has not added yet."""
        return max(self.planned, len(self.runs))

    @property
    def metrics(self) -> dict[str, float]:
        """The counts as metrics of the parent run."""
        return {**{state: float(self.count(state)) for state in ENDED}, "total": float(self.total)}

    @property
    def sentence(self) -> str:
        """`3 done, 1 failed, 4 skipped (finished before), 0 to do`, and the number of refused runs if there are any."""
        done, failed, skipped, refused = (self.count(state) for state in ENDED)
        to_do = self.total - self.count(*ENDED)
        counts = f"{done} done, {failed} failed, {skipped} skipped (finished before)"
        return f"{counts}, {f'{refused} refused, ' if refused else ''}{to_do} to do"

    def expected_seconds(self, run: PlannedRun) -> float | None:
        """Expected duration of a run; None without a comparable run.

        It is the median of this sweep's runs of the same configuration, else the estimate, else the median of all runs.
        """
        done = [(each.name, each.seconds) for each in self.runs if each.state == "done" and each.seconds is not None]
        own = [seconds for name, seconds in done if name == run.name]
        if not own and run.estimate_seconds is not None:
            return run.estimate_seconds
        seconds = own or [seconds for _, seconds in done]
        return statistics.median(seconds) if seconds else None

    def remaining_of(self, run: PlannedRun) -> float | None:
        """Seconds until a started run ends; None if unknown."""
        expected = self.expected_seconds(run)
        return None if expected is None else max(0.0, expected - (run.seconds or 0.0))

    @property
    def remaining_seconds(self) -> float | None:
        """Seconds until all runs have ended; None if the duration of a run is unknown."""
        left = [self.remaining_of(run) for run in self.runs if run.state not in ENDED]
        to_add = self.total - len(self.runs)
        typical = self.expected_seconds(PlannedRun("", 0)) if to_add else 0.0
        known = [seconds for seconds in left if seconds is not None]
        if len(known) < len(left) or typical is None:
            return None
        return max([(sum(known) + to_add * typical) / self.slots, *known])

    def rows(self) -> list[tuple[str, ...]]:
        """Cells under HEADINGS."""
        rows: list[tuple[str, ...]] = []
        for run in self.runs:
            running = run.state == "running"
            device = f" on {run.device}" if run.device and running else ""
            detail = run.failure.splitlines()[0] if run.failure else run.log_line if running else ""
            state = f"{run.state}{device}: {detail}" if detail else f"{run.state}{device}"
            wer, rate = (
                f"{run.metrics[n]:.2f}" if n in run.metrics else "" for n in (error_metric(run.metrics), "reqs_per_sec")
            )
            elapsed = "" if run.seconds is None else clock(run.seconds)
            rows.append((run.name, str(run.repeat), state, wer, rate, elapsed, (run.run_id or "")[:8]))
        return rows

    def markdown(self, address_of: Callable[[str], str] | None = None) -> str:
        """The summary and the table; `address_of` returns the address of a run by its id."""
        rows: list[list[Cell]] = []
        for run, (*cells, run_id) in zip(self.runs, self.rows(), strict=True):
            rows.append([*cells, Linked(run_id, address_of(run.run_id)) if address_of and run.run_id else run_id])
        table = Table(HEADINGS, rows, frozenset(map(HEADINGS.index, NUMERIC)))
        return f"{self.sentence}\n\n{as_markdown([table])}"


def plain(row: Sequence[str]) -> str:
    """One row as a line of text, for an output without a terminal."""
    name, repeat, state, wer, rate, elapsed, run = row
    figures = {"WER/CER": wer, "reqs/sec": rate, "elapsed": elapsed, "run": run}
    return f"{name} #{repeat} {state}" + "".join(f" | {what} {text}" for what, text in figures.items() if text)
