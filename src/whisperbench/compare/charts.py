"""The bar charts of leaderboard.html: boxes of the page itself, so that they fit a phone and print well."""

from __future__ import annotations

from collections.abc import Sequence

from whisperbench.compare.leaderboard import Board
from whisperbench.compare.plot import colour
from whisperbench.text import escape

MOST_BARS = 30


def wer_chart(board: Board) -> str:
    """Each configuration's WER as a dot on its 95 % interval, in the board's order."""
    scored = [(row.configuration, row.configuration.wer) for row in board.rows]
    known = [
        (c, wer, (c.interval.low, c.interval.high) if c.interval else (wer, wer))
        for c, wer in scored
        if wer is not None
    ]
    if not known:
        return ""
    low, high = min(limits[0] for *_, limits in known), max(limits[1] for *_, limits in known)
    scale = 100 / ((high - low) or 1.0)
    items = []
    for c, wer, (start, end) in known[:MOST_BARS]:
        paint = f"background:var(--c{colour(board, c.gpu)})"
        interval = _box("interval", (start - low) * scale, (end - start) * scale, paint)
        items.append(_item(c.label, interval + _box("dot", (wer - low) * scale, None, paint), f"{wer:.2f}"))
    return _chart(f"WER % with its 95 % interval, {low:.2f} to {high:.2f}", items, len(known))


def speed_chart(board: Board) -> str:
    """Throughput by GPU: a bar from 0 to the median, and the range of the repeats."""
    measured = [(row.configuration, row.configuration.spread("reqs_per_sec")) for row in board.rows]
    known = [(c, spread) for c, spread in measured if spread is not None]
    if not known:
        return ""
    known.sort(key=lambda pair: (pair[0].gpu, -pair[1].median))
    scale = 100 / (max(spread.high for _, spread in known) or 1.0)
    items, gpu = [], None
    for c, spread in known[:MOST_BARS]:
        if c.gpu != gpu:
            gpu = c.gpu
            items.append(f'<li class="heading">{escape(gpu)}</li>')
        bars = _box("bar", 0, spread.median * scale, f"background:var(--c{colour(board, c.gpu)})")
        if spread.n > 1:
            bars += _box("range", spread.low * scale, (spread.high - spread.low) * scale)
        items.append(_item(c.label, bars, f"{spread.median:.2f}"))
    return _chart("Utterances per second", items, len(known))


def _chart(heading: str, items: Sequence[str], count: int) -> str:
    more = f'<p class="quiet">The first {MOST_BARS} of {count}.</p>' if count > MOST_BARS else ""
    return f'<div><h3>{escape(heading)}</h3><ol class="bars">{"".join(items)}</ol>{more}</div>'


def _item(label: str, boxes: str, figure: str) -> str:
    return f'<li><span>{escape(label)}</span><span class="track">{boxes}</span><span>{figure}</span></li>'


def _box(kind: str, left: float, width: float | None, paint: str = "") -> str:
    """A part of a track; both measures in percent of it."""
    size = "" if width is None else f"width:{width:.2f}%;"
    return f'<i class="{kind}" style="left:{left:.2f}%;{size}{paint}"></i>'
