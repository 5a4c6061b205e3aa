"""Measure and show thinned padding: WER and rate of each `padding_stride`.

\b
  python -m benchmarks.padding accuracy --models large-v3,large-v3-turbo --corpus librispeech
  python -m benchmarks.padding frontier      the table of the recorded rows
  python -m benchmarks.padding picture       results/padding.svg

`accuracy` runs the project's own sweep with real weights, which measures only what is not finished, and compares the
transcripts of each stride with those of stride 1. `make bench BENCH_FLAGS="--grid padding"` measures the rates with
random weights. `frontier` and `picture` read the rows of both from `results`: rates and WER belong to different models,
because the weights of the models that were timed were not available.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.bench import COMMIT, RESULTS, slug
from whisperbench.cli.options import Command

if TYPE_CHECKING:
    from whisperbench.config.sweep import SweepConfig
    from whisperbench.results.transcripts import StoredTranscripts
    from whisperbench.tracking.sweep_runs import FinishedRun

SPEED = ("large-v3-turbo", "large-v3")
"""Models whose rate is drawn, one panel each."""
ACCURACY = {"tiny.en": "#e08214", "base": "#2166ac"}
"""Models whose WER is drawn, one line each."""
NAMES = {"demo": "tiny.en"}
MARGIN = 0.2
"""Points of WER that count as the same."""
PARAMS = (
    "gpu_name", "gpu_count", "engine", "padding_stride", "engines_per_gpu", "mel_device", "engine_version",
    "torch_version", "dtype", "kv_cache_dtype", "max_num_seqs", "load_format",
)  # fmt: skip
METRICS = (
    "reqs_per_sec", "client_cpu_seconds", "wer", "wer_ci_low", "wer_ci_high", "substitutions", "deletions",
    "insertions", "reference_words", "utterances", "repetition_loops", "retried_windows",
)  # fmt: skip

Row = dict[str, Any]


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command(cls=Command)
@click.option("--models", default="demo", show_default=True, help="Models of the sweep, separated by commas.")
@click.option("--corpus", default="librispeech", show_default=True, help="Corpus of the sweep, with transcripts.")
@click.option("--strides", default="1,4,8,16,32,64", show_default=True, help="Strides, compared with 1.")
@click.option("--max-num-seqs", default="128", show_default=True)
@click.option("--output", default=RESULTS, type=click.Path(path_type=Path), show_default=True)
def accuracy(models: str, corpus: str, strides: str, max_num_seqs: str, output: Path) -> None:
    """Measure the WER of each stride with real weights."""
    from whisperbench.cli import sweep
    from whisperbench.config.sweep import SweepConfig

    options = SweepConfig.from_params(
        {"model": models, "corpus": corpus, "padding_stride": strides, "max_num_seqs": max_num_seqs}
    )
    sweep.run(options)
    found = measured_rows(options)
    path = output / f"{slug(found[0]['gpu_name'])}-padding-accuracy.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": found}, indent=1) + "\n", encoding="utf-8")


@main.command()
def frontier() -> None:
    """Print the table of the recorded rows."""
    click.echo("\n".join(table(recorded_rows())))


@main.command()
def picture() -> None:
    """Draw results/padding.svg."""
    draw(RESULTS / "padding.svg", recorded_rows())


def measured_rows(options: SweepConfig) -> list[Row]:
    """One row per configuration, of its newest run: params, metrics and the test against stride 1 of its model."""
    from whisperbench.files import cache_directory
    from whisperbench.results.names import CONFIG_DIGEST
    from whisperbench.sweep.grid import configurations_of
    from whisperbench.tracking.client import connect
    from whisperbench.tracking.read import read_transcripts
    from whisperbench.tracking.sweep_runs import current_experiment, finished_child_runs

    client = connect()
    finished = finished_child_runs(client, current_experiment(client) or "0")
    newest = {run.tags.get(CONFIG_DIGEST): run for run in finished}
    runs = [newest[config.digest] for config in configurations_of(options) if config.digest in newest]
    transcripts = read_transcripts(client, [run.run_id for run in runs], cache_directory() / "transcripts")
    exact = {run.params["model"]: transcripts[run.run_id] for run in runs if run.params["padding_stride"] == "1"}
    return [measured_row(run, transcripts[run.run_id], exact.get(run.params["model"])) for run in runs]


def measured_row(run: FinishedRun, transcripts: StoredTranscripts | None, exact: StoredTranscripts | None) -> Row:
    """`against_1`: WER minus the WER of stride 1 in points, its 95 % limits, outcome and number of equal texts."""
    from whisperbench.compare.verdicts import wer_difference

    found: Row = {
        "model": NAMES.get(run.params["model"], Path(run.params["model"]).name),
        **{name: run.params[name] for name in PARAMS if name in run.params},
        "commit": run.tags.get(COMMIT),
        **{name: round(run.metrics[name], 3) for name in METRICS if name in run.metrics},
    }
    test = wer_difference(exact, transcripts, MARGIN) if transcripts is not exact else "the same run"
    if not isinstance(test, str) and transcripts and exact:
        texts = {utterance.utt_id: utterance.hypothesis for utterance in exact}
        equal = sum(texts[utterance.utt_id] == utterance.hypothesis for utterance in transcripts)
        figures = {name: round(getattr(test, name), 3) for name in ("difference", "low", "high")}
        found["against_1"] = {**figures, "outcome": test.outcome, "equal_texts": equal}
    return found


def recorded_rows(results: Path = RESULTS) -> list[Row]:
    """Rows of the result files that have a `padding_stride` and engine=vllm."""
    rows: list[Row] = []
    for path in sorted(results.glob("*.json")):
        rows += json.loads(path.read_text(encoding="utf-8")).get("rows", [])
    return [row for row in rows if "padding_stride" in row and row["engine"] == "vllm"]


def fastest(rows: Iterable[Row], model: str) -> dict[int, Row]:
    """By stride, the row with random weights and the highest rate on one GPU without CUDA MPS."""
    found = largest_group(
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


def scored(rows: Iterable[Row], model: str) -> dict[int, Row]:
    """By stride, the row with real weights."""
    found = largest_group(row for row in rows if row["model"] == model and "wer" in row)
    return {int(row["padding_stride"]): row for row in found}


def largest_group(rows: Iterable[Row]) -> list[Row]:
    """The rows of the hardware and commit that most rows have: rows of different ones are not comparable."""
    found = list(rows)
    most = collections.Counter((row["gpu_name"], row.get("commit")) for row in found).most_common(1)
    return [row for row in found if [(row["gpu_name"], row.get("commit"))] == [each for each, _ in most]]


def table(rows: list[Row]) -> list[str]:
    """A markdown table with one line per stride."""
    speed, wer = {m: fastest(rows, m) for m in SPEED}, {m: scored(rows, m) for m in ACCURACY}
    strides = sorted({stride for found in (*speed.values(), *wer.values()) for stride in found})
    heads = [f"{m}, reqs/sec (engines)" for m in SPEED] + [f"{m}, WER % (difference)" for m in ACCURACY]
    lines = ["| `padding_stride` | " + " | ".join(heads) + " |", "|--:" * (1 + len(heads)) + "|"]
    for stride in strides:
        cells = [str(stride)]
        for found in speed.values():
            row = found.get(stride)
            cells.append(f"{row['reqs_per_sec']:.1f} ({row.get('engines_per_gpu', 1)})" if row else "")
        for found in wer.values():
            row = found.get(stride)
            test = row.get("against_1") if row else None
            cells.append((f"{row['wer']:.2f}" if row else "") + (f" ({test['difference']:+.2f})" if test else ""))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def draw(target: Path, rows: list[Row]) -> None:
    """Draw one panel per timed model, one line per scored model, one point per stride; equal rows give equal bytes.

    Raises:
        ValueError: no stride has both a rate and a WER.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    speed = {model: found for model in SPEED if (found := fastest(rows, model))}
    accuracies = {model: found for model in ACCURACY if (found := scored(rows, model))}
    if not any(speeds.keys() & wers.keys() for speeds in speed.values() for wers in accuracies.values()):
        raise ValueError("The recorded rows hold no padding_stride with both a rate on a GPU and a WER.")
    mpl.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "whisperbench", "font.family": "sans-serif", "font.size": 9}
    )
    figure = Figure(figsize=(9.6, 4.8), facecolor="white")
    panels = figure.subplots(1, len(speed), sharey=True, squeeze=False)[0]
    for panel, (timed, speeds) in zip(panels, speed.items(), strict=True):
        for place, (model, wers) in enumerate(accuracies.items()):
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
    for place, line in enumerate(notes(speed, accuracies)):
        figure.text(0.5, 0.13 - 0.03 * place, line, ha="center", fontsize=8.5, color="#444444")
    figure.tight_layout(rect=(0, 0.16, 1, 0.93))
    figure.savefig(target, metadata={"Date": None})


def close_together(rates: list[float]) -> list[list[int]]:
    """Groups of neighbours whose labels would overlap: at most an eighteenth of the axis apart."""
    groups: list[list[int]] = []
    for place in sorted(range(len(rates)), key=lambda i: rates[i]):
        if groups and rates[place] - rates[groups[-1][0]] < max(rates) / 18:
            groups[-1].append(place)
        else:
            groups.append([place])
    return [sorted(group) for group in groups]


def notes(speed: dict[str, dict[int, Row]], accuracies: dict[str, dict[int, Row]]) -> list[str]:
    """Hardware, versions and weights of the rates and of the WERs."""
    timed = [row for found in speed.values() for row in found.values()]
    read = [row for found in accuracies.values() for row in found.values()]
    engines = (
        f"{model} " + ", ".join(f"{stride}: {row.get('engines_per_gpu', 1)}" for stride, row in found.items())
        for model, found in speed.items()
    )
    return [
        "The number at a point is padding_stride; it joins the speed of one model to the WER of another, because",
        f"the weights of {' and '.join(speed)} were not available: their own WER is not known.",
        f"Speed: {all_of(timed, 'gpu_name')}, vLLM {all_of(timed, 'engine_version')}, "
        "lengths of LibriSpeech test-clean.",
        f"Engines per GPU, the fastest number by stride: {'; '.join(engines)}.",
        f"WER: {all_of(read, 'gpu_name')}, vLLM {all_of(read, 'engine_version')}, {all_of(read, 'dtype')}, "
        f"{all_of(read, 'utterances')} LibriSpeech utterances, {all_of(read, 'reference_words')} words.",
    ]


def all_of(rows: Iterable[Row], name: str) -> str:
    """The different values of the rows, separated by slashes."""
    values = [row[name] for row in rows if name in row]
    return " / ".join(dict.fromkeys(f"{value:.0f}" if isinstance(value, float) else str(value) for value in values))


if __name__ == "__main__":
    main()
