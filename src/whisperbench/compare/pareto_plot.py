"""The Pareto plot of a board, WER against throughput, as an SVG that needs nothing else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from operator import attrgetter

from markupsafe import Markup

from whisperbench.compare.leaderboard import Board, Row
from whisperbench.compare.published import Counterpart
from whisperbench.compare.systems import System
from whisperbench.results.links import Links
from whisperbench.results.pages import render

LONGEST_LABEL = 34
MANY_POINTS = 40  # of more only the optimal ones show their intervals unless they are pointed at
LEGEND_LINE = 20
LOGARITHMIC = 10
"""An axis whose values differ by more than this factor is logarithmic."""

HUES = 8
SHAPES = (
    "M5 0A5 5 0 1 1-5 0 5 5 0 1 1 5 0z",
    "M-4.5-4.5h9v9h-9z",
    "M0-6 5.5 4h-11z",
    "M0 6 5.5-4h-11z",
)
"""Circle, square, triangles: with eight hues 32 GPUs look different, also to colour-blind eyes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """How a GPU is drawn: the number of its hue, and the path of its mark around 0, 0."""

    hue: int
    shape: str

    @classmethod
    def of(cls, place: int) -> Look:
        return cls(place % HUES, SHAPES[(place + place // HUES) % len(SHAPES)])


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """One mark; `title` shows up when it is pointed at; a published result has no look and leads nowhere."""

    wer: float
    rate: float
    label: str
    title: tuple[str, ...]
    look: Look | None = None
    pareto: bool = False
    race: str = ""
    run_id: str = ""
    address: str = ""
    wer_limits: tuple[float, float] | None = None
    rate_limits: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """A scale from values to pixels with its round marks, linear or logarithmic."""

    marks: tuple[float, ...]
    start: float
    end: float
    digits: int
    logarithmic: bool = False

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, ticks: int) -> Axis:
        """Around `values`, in about `ticks` round steps; never below 0."""
        low, high = min(values), max(values)
        if low > 0 and high > low * LOGARITHMIC:
            powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            factors = (1, 2, 5) if high < low * 1e4 else (1,)
            rounds = [factor * 10.0**power for power in powers for factor in factors]
            first, last = max(r for r in rounds if r <= low), min(r for r in rounds if r >= high)
            digits = max(0, -math.floor(math.log10(first)))
            return cls(tuple(r for r in rounds if first <= r <= last), start, end, digits, logarithmic=True)
        span = (high - low) or abs(high) or 1.0
        rough = span * 1.25 / ticks
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
        bottom = max(0.0, math.floor((low - span * 0.08) / step) * step)
        count = round((math.ceil((high + span * 0.08) / step) * step - bottom) / step)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return cls(tuple(bottom + i * step for i in range(count + 1)), start, end, digits)

    def at(self, value: float) -> float:
        """The place of a value; one beyond the ends is at the end."""
        low, high, value = self.marks[0], self.marks[-1], min(max(value, self.marks[0]), self.marks[-1])
        share = math.log(value / low) / math.log(high / low) if self.logarithmic else (value - low) / (high - low)
        return self.start + share * (self.end - self.start)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        return [(mark, f"{mark:.{self.digits}f}") for mark in self.marks]


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


def looks(board: Board, of: Callable[[System], str] = attrgetter("gpu")) -> dict[str, Look]:
    """The GPUs of a board, or what else `of` tells of its systems, in a fixed order, each with its look."""
    return {name: Look.of(place) for place, name in enumerate(sorted({of(row.system) for row in board.rows}))}


def points_of(board: Board, published: Sequence[Counterpart], links: Links) -> list[Point]:
    """The board's rows that have both figures, and the published ones of the same GPU family and model."""
    found = looks(board)
    points = [point for row in board.rows if (point := _point(row, found[row.system.gpu], links)) is not None]
    here = {id(row.system) for row in board.rows}
    for each in published:
        if points and each.system is not None and id(each.system) in here:
            p = each.published
            title = f"published: {p.label}, {p.gpu}", f"WER {p.wer:.2f} %, {p.reqs_per_sec:.2f} reqs/sec"
            points.append(Point(p.wer, p.reqs_per_sec, p.label, title))
    return points


def pareto_svg(
    board: Board,
    published: Sequence[Counterpart],
    links: Links,
    *,
    title: str = "",
    width: int = 1180,
    height: int = 440,
    kind: str = "wide",
) -> Markup | None:
    """Right is faster, down is more accurate; steps join the optimal points of each GPU.  None without points.

    Args:
        title: heads a plot that stands alone, which brings its own style too.
        height: of the plot; the legend is below.
    """
    points = points_of(board, published, links)
    if not points:
        return None
    left, right, top, bottom = 52, width - 16, 40 if title else 14, height - 44
    shown = [p for p in points if p.pareto or len(points) <= MANY_POINTS]
    rates = [rate for p in shown for rate in p.rate_limits or ()] + [p.rate for p in points]
    wers = [wer for p in shown for wer in p.wer_limits or ()] + [p.wer for p in points]
    x, y = Axis.over(rates, left, right, max(3, width // 110)), Axis.over(wers, bottom, top, 7)
    measured = {p.look for p in points}
    legend = _legend([(gpu, look) for gpu, look in looks(board).items() if look in measured], None in measured, width)
    return render(
        "pareto.svg.jinja",
        kind=kind,
        title=title,
        width=width,
        plot_height=height,
        height=height + LEGEND_LINE * (legend[-1][3] + 1) + 4,
        legend_line=LEGEND_LINE,
        x=x,
        y=y,
        many=len(points) > MANY_POINTS,
        fronts=_fronts(points, x, y),
        points=sorted(points, key=lambda p: (p.pareto, p.look is not None)),
        labels=_labels(points, x, y),
        legend=legend,
    )


def _point(row: Row, look: Look, links: Links) -> Point | None:
    c, rate, interval = row.system, row.system.median("reqs_per_sec"), row.rates.get("reqs_per_sec")
    if c.wer is None or rate is None:
        return None
    wer_limits = (c.interval.low, c.interval.high) if c.interval else None
    rate_limits = (interval.low, interval.high) if interval else None
    between = " ({:.2f} to {:.2f})"
    return Point(
        c.wer,
        rate,
        c.label,
        (
            c.label,
            c.gpu,
            f"WER {c.wer:.2f} %{between.format(*wer_limits) if wer_limits else ''}",
            f"{rate:.2f} reqs/sec{between.format(*rate_limits) if rate_limits else ''}",
        ),
        look,
        row.pareto,
        c.speed_key,
        c.newest.run_id,
        links.run(c.newest),
        wer_limits,
        rate_limits,
    )


def _fronts(points: Sequence[Point], x: Axis, y: Axis) -> list[tuple[Look | None, str, str]]:
    """Of each race with several optimal points: look, path, and the ids of its runs.

    The path goes in steps: what lies between two points nobody has measured, only that both can be had.
    """
    races: dict[str, list[Point]] = {}
    for point in sorted((p for p in points if p.pareto), key=lambda p: (p.rate, p.wer)):
        races.setdefault(point.race, []).append(point)
    found = []
    for front in races.values():
        steps = [f"V{y.at(p.wer):.1f}H{x.at(p.rate):.1f}" for p in front[1:]]
        path = f"M{x.at(front[0].rate):.1f} {y.at(front[0].wer):.1f}{''.join(steps)}"
        if steps:
            found.append((front[0].look, path, " ".join(p.run_id for p in front)))
    return found


def _legend(gpus: Sequence[tuple[str, Look]], published: bool, width: int) -> list[tuple[str, Look | None, float, int]]:
    """Name, look, place from the left and line of each entry; None is the look of what was published."""
    found: list[tuple[str, Look | None, float, int]] = []
    left, line = 52.0, 0
    for name, look in [*gpus, *([("published", None)] if published else [])]:
        wide = 40 + 6.6 * len(name)
        if found and left + wide > width:
            left, line = 52.0, line + 1
        found.append((name, look, left, line))
        left += wide
    return found


def _labels(points: Sequence[Point], x: Axis, y: Axis) -> list[tuple[str, str, float, float]]:
    """Names of the optimal points, their runs and places, where one covers neither a point nor another name."""
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
                found.append((text, point.run_id, box.left, box.top + 11))
                break
    return found
