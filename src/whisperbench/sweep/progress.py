"""How far a sweep is: one line per run that it wants, as rows of text, markdown and metrics."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

State = Literal["waiting", "running", "done", "failed", "pruned", "skipped"]

HEADINGS = ("configuration", "repeat", "state", "WER", "reqs/sec", "elapsed", "ETA", "run")
ENDED: tuple[State, ...] = ("done", "failed", "pruned")


@dataclasses.dataclass(slots=True, eq=False)
class Line:
    """One run of the sweep; `estimate_seconds` from earlier runs like it, None where there are none.

    `skipped` means that an earlier sweep has finished it: its metrics are that run's.
    """

    name: str
    repeat: int
    estimate_seconds: float | None = None
    state: State = "waiting"
    seconds: float | None = None
    run_id: str | None = None
    failure: str | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class Progress:
    """All lines, in the order in which they run; `planned` is how many there will be (a search adds as it goes)."""

    lines: list[Line]
    planned: int = 0

    def count(self, *states: State) -> int:
        return sum(line.state in states for line in self.lines)

    @property
    def total(self) -> int:
        return max(self.planned, len(self.lines))

    @property
    def metrics(self) -> dict[str, float]:
        counts = {"done": "done", "failed": "failed", "skipped": "skipped"}
        found = {name: float(self.count(state)) for name, state in counts.items()}  # type: ignore[arg-type]
        return {**found, "pruned": float(self.count("pruned")), "total": float(self.total)}

    @property
    def sentence(self) -> str:
        """`3 done, 1 failed, 4 skipped (finished before), 0 to do`."""
        pruned = f", {self.count('pruned')} pruned" if self.count("pruned") else ""
        ended = self.count(*ENDED, "skipped")
        return (
            f"{self.count('done')} done, {self.count('failed')} failed{pruned}, "
            f"{self.count('skipped')} skipped (finished before), {self.total - ended} to do"
        )

    def expected_seconds(self, line: Line) -> float | None:
        """What a line takes: the median of this sweep's finished runs, of its own configuration where there is one."""
        done = [each for each in self.lines if each.state == "done" and each.seconds is not None]
        own = [each.seconds for each in done if each.name == line.name]
        seconds = [s for s in own or [each.seconds for each in done] if s is not None]
        if own or line.estimate_seconds is None:
            return statistics.median(seconds) if seconds else line.estimate_seconds
        return line.estimate_seconds

    @property
    def remaining_seconds(self) -> float | None:
        """Of everything that waits or runs; None where that cannot be told."""
        left = [self.remaining_of(line) for line in self.lines if line.state in ("waiting", "running")]
        more = self.total - len(self.lines)
        typical = self.expected_seconds(Line("", 0)) if more else 0.0
        known = [seconds for seconds in left if seconds is not None]
        return None if len(known) < len(left) or typical is None else sum(known) + more * typical

    def remaining_of(self, line: Line) -> float | None:
        expected = self.expected_seconds(line)
        return None if expected is None else max(0.0, expected - (line.seconds or 0.0))

    def rows(self) -> list[tuple[str, ...]]:
        """Text under HEADINGS; the ETA of a waiting line counts everything before it."""
        rows: list[tuple[str, ...]] = []
        ahead: float | None = 0.0
        for line in self.lines:
            eta = ""
            if line.state in ("waiting", "running"):
                remaining = self.remaining_of(line)
                ahead = None if ahead is None or remaining is None else ahead + remaining
                eta = "unknown" if ahead is None else clock(ahead)
            state = f"{line.state}: {line.failure.splitlines()[0]}" if line.failure else line.state
            rate = (_figure(line.metrics.get(name)) for name in ("wer", "reqs_per_sec"))
            elapsed = "" if line.seconds is None else clock(line.seconds)
            rows.append((line.name, str(line.repeat), state, *rate, elapsed, eta, (line.run_id or "")[:8]))
        return rows

    def markdown(self, address_of: Callable[[str], str] | None = None) -> str:
        """The sentence and the table; with `address_of` a run id, each run is a link."""
        rows = []
        for line, row in zip(self.lines, self.rows(), strict=True):
            *cells, run = (_cell(cell) for cell in row)
            linked = f"[{run}]({address_of(line.run_id)})" if address_of and line.run_id else run
            rows.append(f"| {' | '.join((*cells, linked))} |")
        head = [f"| {' | '.join(HEADINGS)} |", "|---|--:|---|--:|--:|--:|--:|---|"]
        return "\n".join([self.sentence, "", *head, *rows]) + "\n"


def clock(seconds: float) -> str:
    """61 as `1:01`, 3661 as `1:01:01`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def plain(row: Sequence[str]) -> str:
    """One row as a line of text, for where no table can be drawn again and again."""
    name, repeat, state, wer, rate, elapsed, eta, run = row
    figures = {"WER": wer, "reqs/sec": rate, "elapsed": elapsed, "ETA": eta, "run": run}
    return f"{name} #{repeat} {state}" + "".join(f" | {what} {text}" for what, text in figures.items() if text)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
