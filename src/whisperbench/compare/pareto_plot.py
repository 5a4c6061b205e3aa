"""The Pareto plot of a board, WER against throughput, as an SVG that needs nothing else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from markupsafe import Markup

from whisperbench.compare.leaderboard import Board, Row
from whisperbench.compare.published import Counterpart
from whisperbench.results.pages import render

LONGEST_LABEL = 34
COLOURS = 6
"""Hues that stay apart for colour-blind eyes; further GPUs share the last."""


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """One mark; `title` shows up when it is pointed at, `series` is its GPU's number, None for a published result."""

    wer: float
    rate: float
    label: str
    title: tuple[str, ...]
    series: int | None
    pareto: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """A linear scale from values to pixels, with round ticks."""

    low: float
    high: float
    start: float
    end: float
    step: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, ticks: int) -> Axis:
        """Around `values`, in about `ticks` round steps; never below 0."""
        low, high = min(values), max(values)
        span = (high - low) or abs(high) or 1.0
        rough = span * 1.25 / ticks
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
        bottom = max(0.0, math.floor((low - span * 0.08) / step) * step)
        return cls(bottom, math.ceil((high + span * 0.08) / step) * step, start, end, step)

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        digits = max(0, -math.floor(math.log10(self.step) + 1e-9))
        count = round((self.high - self.low) / self.step)
        return [(self.low + i * self.step, f"{self.low + i * self.step:.{digits}f}") for i in range(count + 1)]


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    width: float
    height: float

    def touches(self, other: Box) -> bool:
        apart = self.left > other.left + other.width or other.left > self.left + self.width
        return not (apart or self.top > other.top + other.height or other.top > self.top + self.height)


def gpus_of(board: Board) -> list[str]:
    """The GPUs of a board in a fixed order: their place is their colour."""
    return sorted({row.system.gpu for row in board.rows})


def colour(board: Board, gpu: str) -> int:
    return min(gpus_of(board).index(gpu), COLOURS - 1)


def points_of(board: Board, published: Sequence[Counterpart]) -> list[Point]:
    """The board's rows that have both figures, and the published ones of the same GPU family and model."""
    points = [point for row in board.rows if (point := _point(board, row)) is not None]
    here = {id(row.system) for row in board.rows}
    for each in published:
        if points and each.system is not None and id(each.system) in here:
            p = each.published
            title = f"published: {p.label}, {p.gpu}", f"WER {p.wer:.2f} %, {p.reqs_per_sec:.2f} reqs/sec"
            points.append(Point(p.wer, p.reqs_per_sec, p.label, title, None, pareto=False))
    return points


def pareto_svg(
    board: Board, published: Sequence[Counterpart], *, width: int = 1080, height: int = 440, kind: str = "wide"
) -> Markup | None:
    """Right is faster, down is more accurate; one line per GPU joins its optimal points. None without points."""
    points = points_of(board, published)
    if not points:
        return None
    left, right, top, bottom = 52, width - 16, 14, height - 44
    x = Axis.over([p.rate for p in points], left, right, max(3, width // 110))
    y = Axis.over([p.wer for p in points], bottom, top, 5)
    optimal = sorted((p for p in points if p.pareto), key=lambda p: p.rate)
    series = sorted({p.series for p in points if p.series is not None})
    return render(
        "pareto.svg.jinja",
        kind=kind,
        width=width,
        height=height,
        x=x,
        y=y,
        fronts={number: front for number in series if len(front := [p for p in optimal if p.series == number]) > 1},
        points=sorted(points, key=lambda p: (p.pareto, p.series is not None)),
        labels=_labels(points, x, y),
    )


def _point(board: Board, row: Row) -> Point | None:
    c, rate = row.system, row.system.median("reqs_per_sec")
    if c.wer is None or rate is None:
        return None
    title = c.label, c.gpu, f"WER {c.wer:.2f} %, {rate:.2f} reqs/sec"
    return Point(c.wer, rate, c.label, title, colour(board, c.gpu), row.pareto)


def _labels(points: Sequence[Point], x: Axis, y: Axis) -> list[tuple[str, float, float]]:
    """Names of the optimal points and their places, where one covers neither a point nor another name."""
    taken = [Box(x.at(p.rate) - 6, y.at(p.wer) - 6, 12, 12) for p in points]
    found = []
    for point in sorted((p for p in points if p.pareto), key=lambda p: -p.rate):
        text = point.label if len(point.label) <= LONGEST_LABEL else f"{point.label[: LONGEST_LABEL - 1]}…"
        cx, cy, width = x.at(point.rate), y.at(point.wer), 6.6 * len(text)
        places = [(cx - width / 2, cy - 22), (cx + 10, cy - 7), (cx - width / 2, cy + 9), (cx - width - 10, cy - 7)]
        for box in (Box(left, top, width, 14) for left, top in places):
            inside = box.left >= x.start and box.left + box.width <= x.end and y.end <= box.top <= y.start - box.height
            if inside and not any(box.touches(other) for other in taken):
                taken.append(box)
                found.append((text, box.left, box.top + 11))
                break
    return found
