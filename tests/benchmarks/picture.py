"""Draw `results/throughput.svg` from the recorded results:  python -m tests.benchmarks.picture"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PUBLISHED = Path(__file__).parents[2] / "src" / "whisperbench" / "data" / "published_results.csv"
MODELS = ("large-v3-turbo", "large-v3")
COLOURS = {"published, H100": "#9a9a9a", "stock LLM.generate, H200": "#e08214", "whisperbench, H200": "#2166ac"}


def recorded(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"NVIDIA-H200-{name}.json").read_text(encoding="utf-8")))


def bars(model: str) -> dict[str, dict[str, float]]:
    """Setting (`kv_cache_dtype, max_num_seqs`) -> what was measured -> utterances per second."""
    published, stock, here = COLOURS
    found: dict[str, dict[str, float]] = {}
    for row in csv.DictReader(PUBLISHED.read_text(encoding="utf-8").splitlines()):
        if row["gpu"] == "H100" and row["model"] == model:
            found[f"{row['kv_cache_dtype']}, {row['max_num_seqs']}"] = {published: float(row["reqs_per_sec"])}
    for run in recorded("published-grid")["rows"]:
        if run["model"] == model:
            found[f"{run['kv_cache_dtype']}, {run['max_num_seqs']}"][here] = run["metrics"]["reqs_per_sec"]
    medians = recorded(f"{model}-auto-256")["reqs_per_sec"]
    return {**found, "auto, 256": {stock: medians["stock"], here: medians["pipelined"]}}


def draw(target: Path) -> None:
    """One panel per model, two bars per setting; the same results give the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "whisperbench", "font.family": "sans-serif"})
    figure = Figure(figsize=(9.6, 4.8), facecolor="white")
    panels = figure.subplots(1, len(MODELS), sharex=True, sharey=True)
    for panel, model in zip(panels, MODELS, strict=True):
        for place, pair in enumerate(bars(model).values()):
            for offset, (measured, rate) in zip((-0.19, 0.19), pair.items(), strict=True):
                bar = panel.barh(place + offset, rate, 0.36, color=COLOURS[measured], label=measured)
                panel.bar_label(bar, fmt="%.1f", padding=3, fontsize=9)
        panel.set(title=model, xlim=(0, 195), xlabel="utterances per second", yticks=range(4), yticklabels=bars(model))
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set(ylabel="kv_cache_dtype, max_num_seqs", ylim=(3.6, -0.6))
    handles = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    figure.legend([handles[each] for each in COLOURS], COLOURS, loc="upper center", ncols=3, frameon=False)
    gpu, vllm = (recorded("published-grid")["measured_on"][fact] for fact in ("gpu", "vllm"))
    note = f"One {gpu}, vLLM {vllm}, random weights, lengths of LibriSpeech test-clean. Published: one H100."
    figure.text(0.5, 0.015, note, ha="center", fontsize=9, color="#444444")
    figure.tight_layout(rect=(0, 0.05, 1, 0.93))
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    draw(RESULTS / "throughput.svg")
