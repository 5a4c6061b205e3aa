"""The bar charts of leaderboard.html: boxes of the page itself, so that they fit a phone and print well."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from operator import attrgetter

from whisperbench.compare.leaderboard import Board
from whisperbench.compare.pareto_plot import looks
from whisperbench.compare.systems import System

Told = Callable[[System], str]
GPU: Told = attrgetter("gpu")
MOST_BARS = 20
"""Bars that are seen at once; a filter of the page brings others to sight."""


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """A part of a bar's track, in percent of it; `hue` is the colour of what tells systems apart,
    None the text's."""

    kind: str
    left: float
    width: float | None = None
    hue: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Bar:
    """A system, what tells it from others by colour, what is drawn and the figure."""

    system: System
    told: str
    boxes: Sequence[Box]
    figure: str


@dataclasses.dataclass(frozen=True, slots=True)
class Chart:
    """Bars, the best first."""

    heading: str
    bars: Sequence[Bar]

    @property
    def note(self) -> str:
        """That there are more."""
        return f"The first {MOST_BARS} of {len(self.bars)}." if len(self.bars) > MOST_BARS else ""


def charts(board: Board, of: Told = GPU) -> list[Chart]:
    """WER and throughput, as far as they were measured, of a board that has something to compare.

    `of`: what each colour stands for; the GPU, or the engine where all are of one GPU.
    """
    return [chart for chart in (wer_chart(board, of), speed_chart(board, of)) if len(chart.bars) > 1]


def wer_chart(board: Board, of: Told = GPU) -> Chart:
    """Each system's WER as a dot on its 95 % interval, the most accurate first."""
    known = [
        (c, wer, (c.interval.low, c.interval.high) if c.interval else (wer, wer))
        for c, wer in ((row.system, row.system.wer) for row in board.rows)
        if wer is not None
    ]
    known.sort(key=lambda each: each[1])
    low = min((limits[0] for *_, limits in known), default=0.0)
    high = max((limits[1] for *_, limits in known), default=0.0)
    scale, found = 100 / ((high - low) or 1.0), looks(board, of)
    bars = []
    for c, wer, (start, end) in known:
        hue = found[of(c)].hue
        interval = Box("interval", (start - low) * scale, (end - start) * scale, hue)
        bars.append(Bar(c, of(c), [interval, Box("dot", (wer - low) * scale, None, hue)], f"{wer:.2f}"))
    return Chart(f"WER % with its 95 % interval, {low:.2f} to {high:.2f}", bars)


def speed_chart(board: Board, of: Told = GPU) -> Chart:
    """Throughput, the fastest first whatever its GPU: a bar from 0 to the median, and its 95 % interval."""
    measured = [(row, row.system.median("reqs_per_sec"), row.rates.get("reqs_per_sec")) for row in board.rows]
    known = [(row.system, rate, interval) for row, rate, interval in measured if rate is not None]
    known.sort(key=lambda each: -each[1])
    highest = max((interval.high if interval else rate for _, rate, interval in known), default=0.0)
    scale, found = 100 / (highest or 1.0), looks(board, of)
    bars = []
    for c, rate, interval in known:
        boxes = [Box("bar", 0, rate * scale, found[of(c)].hue)]
        if interval:
            boxes.append(Box("range", interval.low * scale, (interval.high - interval.low) * scale))
        bars.append(Bar(c, of(c), boxes, f"{rate:.2f}"))
    return Chart("Utterances per second", bars)
