"""Draw `results/padding.svg`, WER against utterances per second:  python -m benchmarks.frontier

Both for each `padding_stride`, from rows in `results`: speed from those with random weights (`bench --grid padding`),
WER from those with real ones (`padding_accuracy`).  They are of different models, since the weights of those that were
timed were not available, and the picture says so.  What is missing is left out.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SPEED = ("large-v3-turbo", "large-v3")
"""Models whose speed is drawn, a panel each."""
ACCURACY = {"tiny.en": "#e08214", "base": "#2166ac"}
"""Models whose WER is drawn, a line each."""

Row = dict[str, Any]


def recorded(results: Path) -> list[Row]:
    """Every row of the result files that tells its `padding_stride`; of this engine, no peer's."""
    rows: list[Row] = []
    for path in sorted(results.glob("*.json")):
        rows += json.loads(path.read_text(encoding="utf-8")).get("rows", [])
    return [row for row in rows if "padding_stride" in row and row["engine"] == "vllm"]


def fastest(rows: Iterable[Row], model: str) -> dict[int, Row]:
    """By stride, the row with random weights that has the highest rate on one GPU, of those measured together; without
    CUDA MPS, which a machine has only where somebody started it."""
    found = together(
        row
        for row in rows
        if row["model"] == model and "wer" not in row and int(row["gpu_count"]) == 1 and not row.get("cuda_mps")
    )
    best: dict[int, Row] = {}
    for row in found:
        stride = int(row["padding_stride"])
        if stride not in best or row["reqs_per_sec"] > best[stride]["reqs_per_sec"]:
            best[stride] = row
    return dict(sorted(best.items()))


def accuracy(rows: Iterable[Row], model: str) -> dict[int, Row]:
    """By stride, the row with real weights, of those measured together."""
    return {int(row["padding_stride"]): row for row in together(r for r in rows if r["model"] == model and "wer" in r)}


def together(rows: Iterable[Row]) -> list[Row]:
    """The rows of one kind of hardware and one commit, of which there are most: others are no frontier with them."""
    found = list(rows)
    most = collections.Counter((row["gpu_name"], row.get("commit")) for row in found).most_common(1)
    return [row for row in found if [(row["gpu_name"], row.get("commit"))] == [each for each, _ in most]]


def table(rows: list[Row]) -> list[str]:
    """The same in markdown: a line for each stride that was measured at all."""
    speed, wer = {m: fastest(rows, m) for m in SPEED}, {m: accuracy(rows, m) for m in ACCURACY}
    strides = sorted({stride for found in (*speed.values(), *wer.values()) for stride in found})
    heads = [f"{m}, utterances/s (engines)" for m in SPEED] + [f"{m}, WER % (p)" for m in ACCURACY]
    lines = ["| `padding_stride` | " + " | ".join(heads) + " |", "|--:" * (1 + len(heads)) + "|"]
    for stride in strides:
        cells = [str(stride)]
        for found in speed.values():
            row = found.get(stride)
            cells.append(f"{row['reqs_per_sec']:.1f} ({row.get('engines_per_gpu', 1)})" if row else "")
        for found in wer.values():
            row = found.get(stride)
            test = row.get("against_1") if row else None
            cells.append((f"{row['wer']:.2f}" if row else "") + (f" ({test['p_value']:.2f})" if test else ""))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def draw(target: Path, results: Path = RESULTS) -> None:
    """A panel per model that was timed, a line per model that was scored, a point per stride that has both.

    Raises:
        ValueError: there is no stride with both.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = recorded(results)
    speed = {model: found for model in SPEED if (found := fastest(rows, model))}
    scored = {model: found for model in ACCURACY if (found := accuracy(rows, model))}
    if not any(speeds.keys() & wers.keys() for speeds in speed.values() for wers in scored.values()):
        raise ValueError(f"{results} holds no padding_stride with both a rate on a GPU and a WER")
    mpl.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "whisperbench", "font.family": "sans-serif", "font.size": 9}
    )
    figure = Figure(figsize=(9.6, 4.8), facecolor="white")
    panels = figure.subplots(1, len(speed), sharey=True, squeeze=False)[0]
    for panel, (timed, speeds) in zip(panels, speed.items(), strict=True):
        for place, (model, wers) in enumerate(scored.items()):
            above = (6, "bottom") if place == 0 else (-6, "top")
            strides = sorted(speeds.keys() & wers.keys())
            rates, errors = [speeds[s]["reqs_per_sec"] for s in strides], [wers[s]["wer"] for s in strides]
            label = f"WER of {model}: its real weights"
            panel.plot(rates, errors, "o-", color=ACCURACY[model], label=label, linewidth=1, markersize=5)
            for near in close_together(rates):
                reach = max if place == 0 else min
                spot = (sum(rates[i] for i in near) / len(near), reach(errors[i] for i in near))
                text = ", ".join(str(strides[i]) for i in near)
                panel.annotate(text, spot, (0, above[0]), textcoords="offset points", ha="center", va=above[1])
        panel.set_title(f"speed of {timed}: random weights", fontsize=10)
        panel.set_xlabel(f"utterances per second of {timed}")
        panel.set_xlim(left=0)
        panel.margins(y=0.18)
        panel.grid(color="#eeeeee")
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("WER, percent")
    handles = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="upper center", ncols=2, frameon=False)
    for place, line in enumerate(notes(speed, scored)):
        figure.text(0.5, 0.13 - 0.03 * place, line, ha="center", fontsize=8.5, color="#444444")
    figure.tight_layout(rect=(0, 0.16, 1, 0.93))
    figure.savefig(target, metadata={"Date": None})


def close_together(rates: list[float]) -> list[list[int]]:
    """Places of neighbours whose labels would cover each other: not farther apart than an eighteenth of the axis."""
    groups: list[list[int]] = []
    for place in sorted(range(len(rates)), key=lambda i: rates[i]):
        if groups and rates[place] - rates[groups[-1][0]] < max(rates) / 18:
            groups[-1].append(place)
        else:
            groups.append([place])
    return [sorted(group) for group in groups]


def notes(speed: dict[str, dict[int, Row]], scored: dict[str, dict[int, Row]]) -> list[str]:
    """What was measured where, with which weights, and what was not."""
    timed = [row for found in speed.values() for row in found.values()]
    read = [row for found in scored.values() for row in found.values()]
    engines = (
        f"{model} " + ", ".join(f"{stride}: {row.get('engines_per_gpu', 1)}" for stride, row in found.items())
        for model, found in speed.items()
    )
    return [
        "The number at a point is padding_stride; it joins the speed of one model to the WER of another, because",
        f"the weights of {' and '.join(speed)} were not available: their own WER is not known.",
        f"Speed: {one_of(timed, 'gpu_name')}, vLLM {one_of(timed, 'vllm_version')}, lengths of LibriSpeech test-clean.",
        f"Engines per GPU, the fastest number by stride: {'; '.join(engines)}.",
        f"WER: {one_of(read, 'gpu_name')}, vLLM {one_of(read, 'vllm_version')}, {one_of(read, 'dtype_effective')}, "
        f"{one_of(read, 'utterances')} LibriSpeech utterances, {one_of(read, 'reference_words')} words.",
    ]


def one_of(rows: Iterable[Row], name: str) -> str:
    """The value that all rows have, or all values."""
    values = [row[name] for row in rows if name in row]
    return " / ".join(dict.fromkeys(f"{value:.0f}" if isinstance(value, float) else str(value) for value in values))


if __name__ == "__main__":
    draw(RESULTS / "padding.svg")
    print("\n".join(table(recorded(RESULTS))))
