"""Figures of one run: throughput over time, latencies, and the word error rate by speaker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from whisperbench.measure.result import NO_ERRORS, ErrorCounts
from whisperbench.measure.score import Score
from whisperbench.measure.timing import Pass
from whisperbench.text import escape_control

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOTS = "plots"
MIN_UTTERANCES = 20
"""Utterances of a pass below which there are no figures; the 95th percentile of fewer latencies is the maximum."""
MAX_BINS, MIN_PER_BIN, MAX_SPEAKERS = 40, 5, 40
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#5b626b"


def write_plots(directory: Path, timed: Pass, score: Score | None) -> None:
    """Write one PNG per figure into a new directory, unless the pass is too short to show something.

    Figures whose data was not measured are omitted.
    """
    if len(timed.results) < MIN_UTTERANCES:
        return
    from matplotlib.figure import Figure

    directory.mkdir()
    latencies = sorted(t.latency_seconds for t in timed.results if t.latency_seconds is not None)
    figures: dict[str, Callable[[Axes], None]] = {"throughput": lambda axes: draw_throughput(axes, timed)}
    if latencies:
        figures["latency"] = lambda axes: draw_latency(axes, timed, latencies)
    if score and len(speakers := errors_by_speaker(score)) > 1:
        figures[f"{score.metric}_by_speaker"] = lambda axes: draw_speakers(axes, speakers, score.metric.upper())
    for name, draw in figures.items():
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(directory / f"{name}.png", dpi=110)


def errors_by_speaker(score: Score) -> dict[str, ErrorCounts]:
    """Error counts by speaker, the highest rate first; speakers with empty references are omitted."""
    found: defaultdict[str, ErrorCounts] = defaultdict(lambda: NO_ERRORS)
    for each in score.results:
        if each.speaker is not None and each.counts is not None:
            found[each.speaker] += each.counts
    with_words = {speaker: counts for speaker, counts in found.items() if counts.units}
    return dict(sorted(with_words.items(), key=lambda item: -(item[1].percent or 0.0)))


def draw_throughput(axes: Axes, timed: Pass) -> None:
    """Rate of finished utterances in at most MAX_BINS intervals of equal length, and the rate of the whole pass."""
    finished = [result.finished_seconds for result in timed.results if result.finished_seconds is not None]
    bins = max(1, min(MAX_BINS, len(finished) // MIN_PER_BIN))
    counts, edges = np.histogram(finished, bins, (0, timed.wall_seconds))
    axes.stairs(counts / edges[1], edges, fill=True, color="#bee3f8")
    axes.axhline(timed.reqs_per_sec, color=BLUE, label=f"whole pass: {timed.reqs_per_sec:.2f} reqs/sec")
    axes.set(title="Throughput over time", xlabel="seconds in the timed region", ylabel="utterances per second")
    axes.legend()


def draw_latency(axes: Axes, timed: Pass, latencies: list[float]) -> None:
    """Cumulative distribution of sorted latencies in seconds, with the median and the 95th percentile."""
    axes.plot(latencies, np.linspace(100 / len(latencies), 100, len(latencies)), color=BLUE)
    for percent, colour in ((50, GREY), (95, ORANGE)):
        seconds = (timed.latency_ms(percent) or 0.0) / 1000
        label = f"p{percent}: {seconds:.2f} s"
        axes.plot([seconds, seconds, 0], [0, percent, percent], "--", color=colour, label=label)
    axes.set(title="Latency from the submission of an utterance to its transcript", xlim=(0, None), ylim=(0, 100))
    axes.set(xlabel="seconds", ylabel="share of utterances (%)")
    axes.legend(loc="lower right")


def draw_speakers(axes: Axes, speakers: dict[str, ErrorCounts], rate: str) -> None:
    """WER or CER of the MAX_SPEAKERS speakers with the highest rates, beside their numbers of units, and over all."""
    shown = dict(list(speakers.items())[:MAX_SPEAKERS])
    total, units = sum(speakers.values(), NO_ERRORS), "words" if rate == "WER" else "characters"
    axes.bar(range(len(shown)), [counts.percent or 0.0 for counts in shown.values()], color=BLUE)
    labels = [f"{escape_control(name[:12])} ({counts.units:,})" for name, counts in shown.items()]
    axes.set_xticks(range(len(shown)), labels, parse_math=False)  # a speaker id may contain "$"
    axes.tick_params(axis="x", labelrotation=90, labelsize=7)
    overall = total.percent or 0.0
    axes.axhline(overall, color=ORANGE, label=f"all speakers: {overall:.2f} % of {total.units:,} {units}")
    left_out = f", highest {len(shown)} of {len(speakers)}" if len(shown) < len(speakers) else ""
    axes.set(title=f"{rate} by speaker{left_out}", ylabel=f"{rate} (%)", xlabel=f"speaker ({units})")
    axes.legend()
