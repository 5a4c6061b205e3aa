"""The bar charts of leaderboard.html: boxes of the page itself, so that they fit a phone and print well."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from whisperbench.compare.leaderboard import Board
from whisperbench.compare.pareto_plot import colour

MOST_BARS = 30


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """A part of a bar's track, in percent of it; `series` is its GPU's colour, None the text's."""

    kind: str
    left: float
    width: float | None = None
    series: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Bar:
    """A label, what is drawn and the figure; without boxes a heading."""

    label: str
    boxes: Sequence[Box] = ()
    figure: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Chart:
    """The first bars of `count`."""

    heading: str
    bars: Sequence[Bar]
    count: int

    @property
    def note(self) -> str:
        """That there are more."""
        return f"The first {MOST_BARS} of {self.count}." if self.count > MOST_BARS else ""


def charts(board: Board) -> list[Chart]:
    """WER and throughput, as far as they were measured."""
    return [chart for chart in (wer_chart(board), speed_chart(board)) if chart.bars]


def wer_chart(board: Board) -> Chart:
    """Each system's WER as a dot on its 95 % interval, in the board's order."""
    scored = [(row.system, row.system.wer) for row in board.rows]
    known = [
        (c, wer, (c.interval.low, c.interval.high) if c.interval else (wer, wer))
        for c, wer in scored
        if wer is not None
    ]
    low = min((limits[0] for *_, limits in known), default=0.0)
    high = max((limits[1] for *_, limits in known), default=0.0)
    scale = 100 / ((high - low) or 1.0)
    bars = []
    for c, wer, (start, end) in known[:MOST_BARS]:
        series = colour(board, c.gpu)
        interval = Box("interval", (start - low) * scale, (end - start) * scale, series)
        bars.append(Bar(c.label, [interval, Box("dot", (wer - low) * scale, None, series)], f"{wer:.2f}"))
    return Chart(f"WER % with its 95 % interval, {low:.2f} to {high:.2f}", bars, len(known))


def speed_chart(board: Board) -> Chart:
    """Throughput by GPU: a bar from 0 to the median, and the range of the repeats."""
    measured = [(row.system, row.system.spread("reqs_per_sec")) for row in board.rows]
    known = [(c, spread) for c, spread in measured if spread is not None]
    known.sort(key=lambda pair: (pair[0].gpu, -pair[1].median))
    scale = 100 / (max((spread.high for _, spread in known), default=0.0) or 1.0)
    bars, gpu = [], None
    for c, spread in known[:MOST_BARS]:
        if c.gpu != gpu:
            gpu = c.gpu
            bars.append(Bar(gpu))
        boxes = [Box("bar", 0, spread.median * scale, colour(board, c.gpu))]
        if spread.n > 1:
            boxes.append(Box("range", spread.low * scale, (spread.high - spread.low) * scale))
        bars.append(Bar(c.label, boxes, f"{spread.median:.2f}"))
    return Chart("Utterances per second", bars, len(known))
