"""Plot of the error rate against cost or throughput as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from whisperbench.compare.answer import figure, short_gpu_names
from whisperbench.compare.published import Counterpart
from whisperbench.compare.rank import Leaderboard, Row
from whisperbench.text import escape_control

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

INK = "#7d848c"
"""Colour of text and axes, readable on light and on dark pages because the background is transparent."""
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "whisperbench", "text.parse_math": False, "font.family": "sans-serif",
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": INK, "grid.alpha": 0.2,
}  # fmt: skip
LABEL: Any = {"xytext": (6, 5), "textcoords": "offset points", "va": "bottom", "size": 8}
SHAPES = "osD^vP*X"
"""Markers of the models, in the order of their names; further models begin with the first one again."""
MAX_CHARACTERS = 60
LOGARITHMIC = 10
"""The axis is logarithmic if the values differ by more than this factor."""

Point = tuple[float, float, Row]


def pareto_svg(board: Leaderboard, published: Sequence[Counterpart], title: str = "") -> Markup | None:
    """The plot with one colour per GPU and one shape per model, or None if no system has both values.

    The horizontal axis is the cost if the price of every GPU is known, else the throughput.  Pareto-optimal systems of
    a GPU are connected by dashed steps, and labelled where labels do not overlap.  The tooltip of a point has its
    figures.  Published results of the same GPUs are grey crosses.
    """
    by_cost = all(row.system.median("usd_per_audio_hour") for row in board.rows if row.system.wer is not None)
    metric, factor = ("usd_per_audio_hour", 100) if by_cost else ("reqs_per_sec", 1)
    values = [((row.system.median(metric) or 0) * factor, row.system.wer, row) for row in board.rows]
    points = sorted(((x, wer, row) for x, wer, row in values if x and wer is not None), key=lambda point: point[:2])
    if not points:
        return None
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(11, 4.6), layout="constrained")
        axes = drawn.add_subplot(
            xlabel="¢ per audio hour (left is cheaper)" if by_cost else "requests/s (right is faster)",
            ylabel=f"{board.rows[0].system.error_rate} % (down is more accurate)",
        )
        axes.set_title(_short(title), loc="left")
        labels = _draw(axes, points, short_gpu_names(board), front="post" if by_cost else "pre")
        systems = {row.system for row in board.rows if not by_cost}
        equal = [each.published for each in published if each.system in systems and each.ratio]
        others = [(each.reqs_per_sec / each.gpus, each.wer) for each in equal if each.reqs_per_sec]
        if others:
            axes.scatter(*zip(*others, strict=True), color=INK, marker="x", label="published")
        xs = [x for x, _, _ in points] + [x for x, _ in others]
        if max(xs) > LOGARITHMIC * min(xs):
            _logarithmic(axes)
        drawn.legend(loc="outside lower center", ncols=6, frameon=False)
        drawn.draw_without_rendering()
        _remove_overlapping(labels, right=drawn.bbox.x1)
        file = io.StringIO()
        drawn.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    for place, (_, _, row) in enumerate(points):
        group = f'<g id="point-{place}">'
        svg = svg.replace(group, f"{group}<title>{escape(escape_control(_tooltip(row)))}</title>", 1)
    return Markup(svg[svg.index("<svg") :])  # noqa: S704 - matplotlib and `escape` escape every text


def _draw(axes: Axes, points: Sequence[Point], gpus: Mapping[str, str], *, front: Any) -> list[Annotation]:
    """Draw the points, the front of each GPU (`post` or `pre`: the direction of its steps) and the legend."""
    colours = {gpu: f"C{place}" for place, gpu in enumerate(sorted({row.system.gpu for *_, row in points}))}
    models = sorted({row.system.model for *_, row in points})
    shapes = {model: SHAPES[place % len(SHAPES)] for place, model in enumerate(models)}
    labels = []
    for place, (x, wer, row) in enumerate(points):
        colour = colours[row.system.gpu]
        axes.plot([x], [wer], shapes[row.system.model], color=colour, markersize=7, gid=f"point-{place}")
        if row.pareto:
            text = _short(f"{gpus[row.system.gpu]} {row.system.label}")
            labels.append(axes.annotate(text, (x, wer), color=colour, **LABEL))
    for gpu, colour in colours.items():
        axes.plot([], [], "o", color=colour, label=_short(gpus[gpu]))
        optimal = [(x, wer) for x, wer, row in points if row.pareto and row.system.gpu == gpu]
        line: Any = {"color": colour, "linestyle": "--", "linewidth": 1, "gid": "pareto"}
        axes.step([x for x, _ in optimal], [wer for _, wer in optimal], where=front, **line)
    if len(models) > 1:
        for model, shape in shapes.items():
            axes.plot([], [], shape, color=INK, label=_short(model))
    return labels


def _tooltip(row: Row) -> str:
    """`large-v3 fp8 on NVIDIA H100: WER 2.31 %, 99.40 requests/s, 0.152 ¢ per audio hour`."""
    system = row.system
    measured = {"reqs_per_sec": "reqs_per_sec", "cost": "usd_per_audio_hour"}
    figures = [figure(system, sort) for sort, metric in measured.items() if system.median(metric)]
    return f"{system.label} on {system.gpu}: {', '.join([f'{system.error_rate} {system.wer:.2f} %', *figures])}"


def _logarithmic(axes: Axes) -> None:
    """Use a logarithmic axis with plain numbers at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _remove_overlapping(labels: Sequence[Annotation], right: float) -> None:
    """Remove labels that overlap an earlier one or leave the figure."""
    kept: list[Bbox] = []
    for label in labels:
        box = label.get_window_extent()
        if box.count_overlaps(kept) or box.x1 > right:
            label.remove()
        else:
            kept.append(box)


def _short(text: str) -> str:
    text = escape_control(text)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}…"
