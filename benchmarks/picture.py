"""Draw `results/throughput.svg` from the recorded sweep of one GPU:  python -m benchmarks.picture"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PUBLISHED = Path(__file__).parents[1] / "src" / "whisperbench" / "data" / "published.csv"
MODELS = ("large-v3-turbo", "large-v3")
COLOURS = {"published, best of three": "#9a9a9a", "stock LLM.generate": "#e08214", "whisperbench": "#2166ac"}


def recorded() -> dict[str, Any]:
    return dict(json.loads((RESULTS / "NVIDIA-H100-80GB-HBM3-bench.json").read_text(encoding="utf-8")))


def bars(model: str) -> dict[str, float]:
    """What was measured -> utterances per second, on an H100."""
    rows = csv.DictReader(PUBLISHED.read_text(encoding="utf-8").splitlines())
    script = [row for row in rows if (row["benchmark"], row["gpu"], row["model"]) == ("vLLM script", "H100", model)]
    best = max(float(row["reqs_per_sec"]) for row in script)
    here = {run["front_end"]: run["reqs_per_sec"] for run in recorded()["rows"] if run["model"] == model}
    return dict(zip(COLOURS, (best, here["stock"], here["pipelined"]), strict=True))


def draw(target: Path) -> None:
    """Three bars per model; the same results give the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "whisperbench", "font.family": "sans-serif"})
    figure = Figure(figsize=(9.6, 3.6), facecolor="white")
    panel = figure.subplots()
    for place, model in enumerate(MODELS):
        for offset, (measured, rate) in zip((-0.27, 0.0, 0.27), bars(model).items(), strict=True):
            bar = panel.barh(place + offset, rate, 0.25, color=COLOURS[measured], label=measured)
            panel.bar_label(bar, fmt="%.1f", padding=3, fontsize=9)
    panel.set(xlim=(0, 180), xlabel="utterances per second", yticks=range(len(MODELS)), yticklabels=MODELS)
    panel.invert_yaxis()
    panel.spines[["top", "right"]].set_visible(False)
    handles = dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    figure.legend([handles[each] for each in COLOURS], COLOURS, loc="upper center", ncols=3, frameon=False)
    gpu, vllm = recorded()["measured_on"]["gpu"], recorded()["rows"][0]["vllm_version"]
    note = f"One {gpu}, vLLM {vllm}, random weights, lengths of LibriSpeech test-clean. Published: one H100."
    figure.text(0.5, 0.02, note, ha="center", fontsize=9, color="#444444")
    figure.tight_layout(rect=(0, 0.06, 1, 0.9))
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    draw(RESULTS / "throughput.svg")
