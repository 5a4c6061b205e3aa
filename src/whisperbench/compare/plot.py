"""Plot of WER or CER against throughput as SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from whisperbench.compare.published import Counterpart
from whisperbench.compare.rank import Leaderboard, Row
from whisperbench.text import escape_control

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

INK = "#7d848c"
"""Colour of text and axes, readable on light and on dark pages because the background is transparent."""
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "whisperbench", "text.parse_math": False, "font.family": "sans-serif",
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": INK, "grid.alpha": 0.2,
}  # fmt: skip
LABEL: Any = {"xytext": (5, -4), "textcoords": "offset points", "va": "top", "size": 8}
MAX_CHARACTERS = 60
LOGARITHMIC = 10
"""The axis is logarithmic if the rates differ by more than this factor."""


def pareto_svg(board: Leaderboard, published: Sequence[Counterpart], title: str = "") -> Markup | None:
    """The plot with one colour per GPU, or None if no system has both values.

    Pareto-optimal systems are connected by dashed steps and labelled where labels do not overlap.  Published results of
    the same GPUs are grey crosses.
    """
    measured = [(row.system.median("reqs_per_sec"), row.system.wer, row) for row in board.rows]
    points = [(rate, wer, row) for rate, wer, row in measured if rate and wer is not None]
    points.sort(key=lambda point: point[:2])
    if not points:
        return None
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    systems = {row.system for row in board.rows}
    found = [each.published for each in published if each.system in systems and each.ratio]
    others = [(p.reqs_per_sec / p.gpus, p.wer) for p in found if p.reqs_per_sec]
    rates = [rate for rate, _, _ in points] + [rate for rate, _ in others]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 5), layout="constrained")
        axes = figure.add_subplot(
            xlabel="reqs/sec (right is faster)", ylabel=f"{board.rows[0].system.error_rate} % (down is more accurate)"
        )
        axes.set_title(_short(title), loc="left")
        labels = []
        for i, gpu in enumerate(sorted({row.system.gpu for _, _, row in points})):
            of_gpu = [point for point in points if point[2].system.gpu == gpu]
            optimal = [point for point in of_gpu if point[2].pareto]
            axes.scatter(*_coordinates(of_gpu), color=f"C{i}", label=_short(gpu))
            axes.step(*_coordinates(optimal), color=f"C{i}", linestyle="--", linewidth=1, gid="pareto")
            for x, y, row in reversed(optimal):
                labels.append(axes.annotate(_short(row.system.label), (x, y), color=f"C{i}", **LABEL))
        if others:
            axes.scatter(*zip(*others, strict=True), color=INK, marker="x", label="published")
        if max(rates) > LOGARITHMIC * min(rates):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(ScalarFormatter())
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
        _remove_overlapping(figure, labels)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    return Markup(svg[svg.index("<svg") :])  # noqa: S704 - matplotlib escapes every text


def _coordinates(points: Sequence[tuple[float, float, Row]]) -> tuple[list[float], list[float]]:
    return [rate for rate, _, _ in points], [wer for _, wer, _ in points]


def _remove_overlapping(figure: Figure, labels: list[Annotation]) -> None:
    figure.draw_without_rendering()
    kept: list[Bbox] = []
    for label in labels:
        box = label.get_window_extent()
        if box.count_overlaps(kept):
            label.remove()
        else:
            kept.append(box)


def _short(text: str) -> str:
    text = escape_control(text)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}…"
