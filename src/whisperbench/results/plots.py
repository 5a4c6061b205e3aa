"""Figures of one run: throughput over time, latencies, and the word error rate by speaker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from whisperbench.measure.result import NO_ERRORS, ErrorCounts
from whisperbench.measure.score import Score
from whisperbench.measure.timing import Pass
from whisperbench.text import escape_control

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOTS = "plots"
MAX_BINS, IN_A_BIN, MAX_SPEAKERS = 40, 5, 60
FIRST_LOOK, SECOND_LOOK = "#2b6cb0", "#c05621"


def import_matplotlib() -> None:
    """Import what draws the figures, which takes 0.6 s, before the timed region: a run ends that much sooner."""
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401 - for `_save`


def write_plots(directory: Path, timed: Pass, score: Score | None) -> None:
    """PNG files in a new directory; a figure without data is absent."""
    directory.mkdir()
    latencies = sorted(t.latency_seconds for t in timed.results if t.latency_seconds is not None)
    speakers = errors_by_speaker(score) if score else {}
    figures: dict[str, Callable[[Axes], None] | None] = {
        "throughput": (lambda axes: draw_throughput(axes, timed)) if timed.results else None,
        "latency": (lambda axes: draw_latency(axes, latencies)) if latencies else None,
        "wer_by_speaker": (lambda axes: draw_speakers(axes, speakers)) if len(speakers) > 1 else None,
    }
    for name, draw in figures.items():
        if draw is not None:
            _save(directory / f"{name}.png", draw)


def errors_by_speaker(score: Score) -> dict[str, ErrorCounts]:
    """Of every speaker that is known and has a reference word, the worst first."""
    found: defaultdict[str, ErrorCounts] = defaultdict(lambda: NO_ERRORS)
    for each in score.results:
        if each.speaker is not None and each.counts is not None:
            found[each.speaker] += each.counts
    with_words = {speaker: counts for speaker, counts in found.items() if counts.words}
    return dict(sorted(with_words.items(), key=lambda item: -(item[1].percent or 0.0)))


def draw_throughput(axes: Axes, timed: Pass) -> None:
    """Utterances that finished in each of up to 40 equal parts of the time, as a rate, and the rate of the whole."""
    finished = [result.finished_seconds for result in timed.results if result.finished_seconds is not None]
    bins = max(1, min(MAX_BINS, len(finished) // IN_A_BIN))
    width = timed.wall_seconds / bins
    counts = [0] * bins
    for second in finished:
        counts[min(bins - 1, int(second / width))] += 1
    edges = [width * edge for edge in range(bins + 1)]
    axes.stairs([count / width for count in counts], edges, fill=True, color="#bee3f8")
    axes.axhline(timed.reqs_per_sec, color=FIRST_LOOK, label=f"the whole: {timed.reqs_per_sec:.2f} reqs/sec")
    axes.set(title="Throughput over time", xlabel="seconds since the clock started", ylabel="utterances per second")
    axes.legend()


def draw_latency(axes: Axes, latencies: list[float]) -> None:
    """The share of utterances that had their text within a time."""
    axes.plot(latencies, [100 * (place + 1) / len(latencies) for place in range(len(latencies))], color=FIRST_LOOK)
    axes.set(
        title="Latency: from handing an utterance to the engine to its text",
        xlabel="seconds",
        ylabel="percent of the utterances",
        ylim=(0, 100),
        xlim=(0, None),
    )


def draw_speakers(axes: Axes, speakers: dict[str, ErrorCounts]) -> None:
    """A bar each, the worst ones where there are too many, and the rate of all."""
    shown = dict(list(speakers.items())[:MAX_SPEAKERS])
    whole = sum(speakers.values(), NO_ERRORS).percent or 0.0
    axes.bar(range(len(shown)), [counts.percent or 0.0 for counts in shown.values()], color=FIRST_LOOK)
    axes.set_xticks(
        range(len(shown)), [escape_control(name[:12]) for name in shown], parse_math=False
    )  # others named them
    axes.axhline(whole, color=SECOND_LOOK, label=f"all speakers: {whole:.2f} %")
    axes.tick_params(axis="x", labelrotation=90, labelsize=7)
    left_out = f", the worst {len(shown)} of {len(speakers)}" if len(shown) < len(speakers) else ""
    axes.set(title=f"Word error rate by speaker{left_out}", ylabel="percent of the words")
    axes.legend()


def _save(path: Path, draw: Callable[[Axes], None]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    draw(figure.add_subplot())
    figure.savefig(path, dpi=110)
