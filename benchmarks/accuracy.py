"""Measure how a setting changes WER, corpus by corpus, with one engine start per configuration.

\b
  python -m benchmarks.accuracy combine TARGET CORPUS…      make one corpus of several
  whisperbench sweep --model demo,./base --corpus TARGET --padding-stride 1,4,8,16,32,64
  python -m benchmarks.accuracy verdicts --setting padding_stride --reference 1
  python -m benchmarks.accuracy picture results/NVIDIA-H200-accuracy-padding_stride.json
  python -m benchmarks.accuracy verdicts --setting padding_stride,quantization --reference "1 none"
  python -m benchmarks.accuracy frontier results/NVIDIA-H200-accuracy-padding_stride-quantization.json

An engine start takes longer than the transcription of a small corpus, so `combine` copies several corpora into one
directory and puts the name of each before its utterance ids.  `verdicts` reads the runs of the tracking server and
compares the transcripts of each value with those of the reference value, separately for each of these corpora.
"""

from __future__ import annotations

import collections
import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.bench import RESULTS, slug
from whisperbench.results.names import COMMIT

if TYPE_CHECKING:
    from whisperbench.measure.result import UtteranceResult
    from whisperbench.results.record import RunRecord

MARGINS = 0.2, 0.5
"""Margins in points; a cell of the table states the smallest one that decides."""
SAME_IN_ALL_RUNS = (
    "gpu_name",
    "engine_version",
    "torch_version",
    "dtype",
    "kv_cache_dtype",
    "padding_stride",
    "quantization",
)
"""Params that are equal in all runs of one comparison, except for the setting that is compared."""

PICTURE = "dev-clean", "telephone"
"""Corpora that the picture shows."""
FRONTIER, EXACT = "padding_stride,quantization", "1 none"
MODELS = "large-v3-turbo", "large-v3"
COLOURS = {"base": "#2166ac", "tiny.en": "#e08214"}

Row = dict[str, Any]


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.argument("corpora", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
def combine(target: Path, corpora: Sequence[Path]) -> None:
    """Copy directories with a manifest.jsonl into the directory TARGET, which must not exist."""
    (target / "audio").mkdir(parents=True)
    lines = []
    for corpus in corpora:
        for line in (corpus / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            name = f"audio/{corpus.name}-{Path(entry['audio']).name}"
            shutil.copyfile(corpus / entry["audio"], target / name)
            changed = {"id": f"{corpus.name}/{entry['id']}", "audio": name, "text": entry.get("text", "")}
            lines.append(json.dumps({**entry, **changed}, ensure_ascii=False))
    (target / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


@main.command()
@click.option("--setting", default="padding_stride", show_default=True, help="Param that is compared, or several: A,B.")
@click.option("--reference", default="1", show_default=True, help="Value with which others are compared, or 'A B'.")
@click.option("--where", default=None, help="MLflow filter of the runs, such as \"params.dtype = 'bfloat16'\".")
@click.option("--output", default=RESULTS, type=click.Path(path_type=Path), show_default=True)
def verdicts(setting: str, reference: str, where: str | None, output: Path) -> None:
    """Write the verdicts of the tracking server's runs to a JSON file and print them as a markdown table."""
    from whisperbench.files import cache_directory
    from whisperbench.tracking.client import connect
    from whisperbench.tracking.read import find_runs, read_transcripts

    client = connect()
    newest = {
        tuple(sorted(run.params.items())): run
        for run in sorted(find_runs(client, None, where), key=lambda run: run.start_time)
    }
    transcripts = read_transcripts(client, [run.run_id for run in newest.values()], cache_directory() / "transcripts")
    rows = []
    for runs in _comparable(newest.values(), setting).values():
        exact = next((run for run in runs if value_of(run, setting) == reference), None)
        for run in runs if exact and len(runs) > 1 else ():
            rows += compared(run, setting, transcripts[run.run_id] or (), transcripts[exact.run_id] or ())
    path = output / f"{slug(rows[0]['gpu_name'])}-accuracy-{setting.replace(',', '-')}.json"
    path.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
    click.echo("\n".join(table(rows, setting, reference)))


@main.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def picture(file: Path) -> None:
    """Draw the differences of a file of `verdicts` beside it, without quantised models."""
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    setting = file.stem.rpartition("-")[2]
    kept = [row for row in rows if setting == "quantization" or row["quantization"] == "none"]
    draw(file.with_suffix(".svg"), sorted(kept, key=lambda row: row[setting].zfill(8)), setting)


@main.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def frontier(file: Path) -> None:
    """Draw the WER differences of base in a file of `verdicts` against the rates of the larger models beside it.

    Rates and energy come from NVIDIA-H200-throughput.json in the directory of FILE: for each model and stride from the
    newest host that measured it with and without FP8 in the same number of engines, and there from the slowest run.
    """
    accuracy = json.loads(file.read_text(encoding="utf-8"))["rows"]
    differences = {row[FRONTIER]: row for row in accuracy if (row["model"], row["corpus"]) == ("base", PICTURE[0])}
    throughput = json.loads((file.parent / "NVIDIA-H200-throughput.json").read_text(encoding="utf-8"))["runs"]
    groups: dict[Any, dict[str, Row]] = collections.defaultdict(dict)
    for run in sorted(throughput, key=lambda run: -run["reqs_per_sec"]):
        if run["engine"] != "vllm":
            continue
        group = run["model"], run["padding_stride"], run["host"].partition(",")[0], run.get("engines", "1")
        groups[group][run.get("quantization", "none")] = run
    both = {(model, stride): runs for (model, stride, *_), runs in sorted(groups.items()) if len(runs) > 1}
    points = [
        {**differences[f"{stride} {quantization}"], "model": model, "rate": run["reqs_per_sec"],
         "wh": run["energy_wh_per_audio_hour"]}
        for (model, stride), runs in both.items()
        for quantization, run in runs.items()
    ]  # fmt: skip
    click.echo(
        "| model | stride | quantization | requests/s | Wh per audio hour | WER of base, then differences in points |"
    )
    click.echo("|---|--:|---|--:|--:|---|")
    for point in sorted(points, key=lambda point: (point["model"], point["rate"])):
        name = point[FRONTIER].replace(" ", " | ")
        click.echo(
            f"| {point['model']} | {name} | {point['rate']:.1f} | {point['wh']:.3f} | {cell(point, EXACT, FRONTIER)} |"
        )
    draw_frontier(file.with_suffix(".svg"), points)


def compared(
    run: RunRecord, setting: str, found: Sequence[UtteranceResult], exact: Sequence[UtteranceResult]
) -> list[Row]:
    """One row per corpus: the WER of a run and its difference from the reference run with a verdict per margin."""
    from whisperbench.compare.verdicts import wer_difference
    from whisperbench.stats.paired import PairedDifference

    texts = {utterance.utt_id: utterance for utterance in exact}
    rows = []
    for corpus, utterances in _by_corpus(found).items():
        pairs = [(texts[u.utt_id], u) for u in utterances if u.units is not None]
        row: Row = {
            "model": Path(run.params["model"]).name,
            **{name: run.params[name] for name in SAME_IN_ALL_RUNS if name in run.params},
            "quantization": value_of(run, "quantization"),
            setting: value_of(run, setting),
            "commit": run.tags.get(COMMIT),
            "corpus": corpus,
            "utterances": len(utterances),
            "units": sum(u.units or 0 for _, u in pairs),
            "errors": sum(u.errors or 0 for _, u in pairs),
            "equal_texts": sum(before.hypothesis == after.hypothesis for before, after in pairs),
            "repetition_loops": sum(u.repetition_loops for u in utterances),
        }
        if not row["units"] and row["errors"]:
            row["invented_per_minute"] = round(60 * row["errors"] / sum(u.seconds for u in utterances), 3)
        if row["units"]:
            row["wer"] = round(100 * row["errors"] / row["units"], 3)
            before, after = zip(*pairs, strict=True)
            for margin in MARGINS:
                difference = wer_difference(before, after, margin)
                if not isinstance(difference, PairedDifference):
                    raise click.ClickException(f"Run {run.run_id} cannot be compared in {corpus}: {difference}.")
                row["difference"] = [round(v, 3) for v in (difference.difference, difference.low, difference.high)]
                row["scope"] = difference.scope
                row[f"within_{margin:g}"] = difference.outcome
        rows.append(row)
    return rows


def value_of(run: RunRecord, setting: str) -> str:
    """The value of an option in a run, or the values of several; options that keep their default are not logged."""
    from whisperbench.config.benchmark import OPTIONS

    return " ".join(run.params.get(name, OPTIONS[name].default_text) for name in setting.split(","))


def table(rows: Sequence[Row], setting: str, reference: str) -> list[str]:
    """A markdown table with one line per model and corpus, and one column per value of the setting.

    A cell holds the difference from the reference in points, its 95 % limits and the verdict; for a corpus without
    words it holds the invented words per minute of audio.
    """
    values = list(dict.fromkeys(row[setting] for row in rows))
    values.sort(key=lambda value: (value != reference, not value.isdecimal(), value.zfill(8)))
    same = [name for name in SAME_IN_ALL_RUNS if name not in setting.split(",")]
    others = [name for name in same if len({row.get(name) for row in rows}) > 1]
    lines: dict[tuple[Any, ...], dict[str, Row]] = collections.defaultdict(dict)
    for row in rows:
        if "wer" in row or "invented_per_minute" in row:
            lines[row["model"], row["corpus"], row["units"], *(row.get(name) for name in others)][row[setting]] = row
    heads = ["model", *others, "corpus", "words", f"{setting}={reference}", *values[1:]]
    text = [f"| {' | '.join(heads)} |", f"|{'---|' * (2 + len(others))}--:|--:|{'---|' * len(values[1:])}"]
    for (model, corpus, units, *same), found in sorted(lines.items(), key=lambda line: (line[0][0], -line[0][2])):
        cells = [
            model,
            *map(str, same),
            corpus,
            f"{units:,}",
            *(cell(found.get(value), reference, setting) for value in values),
        ]
        text.append(f"| {' | '.join(cells)} |")
    return text


def cell(row: Row | None, reference: str, setting: str) -> str:
    """What the table shows of a row."""
    if row is None:
        return ""
    if "wer" not in row:
        return f"{row['invented_per_minute']:.1f} invented/min"
    if row[setting] == reference:
        return f"{row['wer']:.2f} %"
    difference, low, high = row["difference"]
    return f"{difference:+.2f} ({low:+.2f} to {high:+.2f}) **{verdict(row)}**"


def verdict(row: Row) -> str:
    """The verdict at the smallest margin that decides; a difference can be real and still lie within a wider margin."""
    for margin in MARGINS:
        if (outcome := row[f"within_{margin:g}"]) in ("same", "not worse"):
            low, high = row["difference"][1:]
            real = "worse, but" if low > 0 else "better, but" if high < 0 else outcome
            return f"{real} within {margin:g}"
    return str(row[f"within_{MARGINS[-1]:g}"])


def draw(target: Path, rows: Sequence[Row], setting: str) -> None:
    """One panel per corpus of PICTURE with the differences over the values of the setting."""
    values = list(dict.fromkeys(row[setting] for row in rows))
    with panels(target, PICTURE, setting, "WER minus the WER of the reference, points") as drawn:
        for panel, corpus in zip(drawn, PICTURE, strict=True):
            panel.axhline(0, color="#888888", linewidth=0.8)
            for shift, (model, colour) in zip((-0.12, 0.12), COLOURS.items(), strict=True):
                found = [row for row in rows if (row["model"], row["corpus"]) == (model, corpus) and "wer" in row]
                error_bars(panel, [values.index(row[setting]) + shift for row in found], found, colour, model)
            panel.set_title(f"{corpus}, {found[0]['units']:,} words", fontsize=10)
            panel.set_xticks(range(len(values)), values)


def draw_frontier(target: Path, points: Sequence[Row]) -> None:
    """One panel per model: the difference over the rate."""
    with panels(target, MODELS, "requests/s", "WER difference of base, points", sharey=True) as drawn:
        for panel, model in zip(drawn, MODELS, strict=True):
            for point in [point for point in points if point["model"] == model]:
                stride, quantization = point[FRONTIER].split()
                colour = COLOURS["base" if quantization == "none" else "tiny.en"]
                label = quantization.replace("none", "bfloat16") if stride == "1" else None
                error_bars(panel, [point["rate"]], [point], colour, label)
                place = point["rate"], point["difference"][1]
                panel.annotate(f"stride {stride}", place, (0, -12), textcoords="offset points", ha="center", fontsize=8)
            panel.margins(0.15)


@contextlib.contextmanager
def panels(target: Path, titles: Sequence[str], x_label: str, y_label: str, **more: Any) -> Iterator[Sequence[Any]]:
    """Panels beside each other, which are written to an SVG file at the end; equal drawings give equal bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "whisperbench", "font.size": 9})
    figure = Figure(figsize=(9.6, 3.6), facecolor="white")
    drawn = figure.subplots(1, len(titles), squeeze=False, **more)[0]
    for panel, title in zip(drawn, titles, strict=True):
        panel.axhspan(-MARGINS[0], MARGINS[0], color="#eeeeee")
        panel.set_title(title, fontsize=10)
        panel.set_xlabel(x_label)
        panel.spines[["top", "right"]].set_visible(False)
    drawn[0].set_ylabel(y_label)
    yield drawn
    drawn[0].legend(frameon=False, loc="upper left")
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})


def error_bars(panel: Any, places: Sequence[float], rows: Sequence[Row], colour: str, label: str | None) -> None:
    """The difference of each row with its 95 % limits."""
    middle = [row["difference"][0] for row in rows]
    limits = [[abs(row["difference"][side] - row["difference"][0]) for row in rows] for side in (1, 2)]
    panel.errorbar(places, middle, limits, fmt="o", color=colour, label=label, capsize=3, linewidth=1)


def _by_corpus(utterances: Iterable[UtteranceResult]) -> Mapping[str, list[UtteranceResult]]:
    groups: dict[str, list[UtteranceResult]] = collections.defaultdict(list)
    for utterance in utterances:
        groups[utterance.utt_id.partition("/")[0]].append(utterance)
    return groups


def _comparable(runs: Iterable[RunRecord], setting: str) -> Mapping[Any, list[RunRecord]]:
    """Groups of runs of one model and data set that differ in the setting alone."""
    groups: dict[Any, list[RunRecord]] = collections.defaultdict(list)
    for run in runs:
        same = [run.params.get(name) for name in SAME_IN_ALL_RUNS if name not in setting.split(",")]
        groups[run.params["model"], run.accuracy_key, *same].append(run)
    return groups


if __name__ == "__main__":
    main()
