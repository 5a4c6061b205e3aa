"""Measure how a setting changes WER, corpus by corpus, with one engine start per configuration.

\b
  python -m benchmarks.accuracy combine TARGET CORPUS…      make one corpus of several
  whisperbench sweep --model demo,./base --corpus TARGET --padding-stride 1,4,8,16,32,64
  python -m benchmarks.accuracy verdicts --setting padding_stride --reference 1

An engine start takes longer than the transcription of a small corpus, so `combine` copies several corpora into one
directory and puts the name of each before its utterance ids.  `verdicts` reads the runs of the tracking server and
compares the transcripts of each value with those of the reference value, separately for each of these corpora.
"""

from __future__ import annotations

import collections
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.bench import COMMIT, RESULTS, slug

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
@click.option("--setting", default="padding_stride", show_default=True, help="Param whose values are compared.")
@click.option("--reference", default="1", show_default=True, help="Value with which the others are compared.")
@click.option("--where", default=None, help="MLflow filter of the runs, such as \"params.dtype = 'bfloat16'\".")
@click.option("--output", default=RESULTS, type=click.Path(path_type=Path), show_default=True)
def verdicts(setting: str, reference: str, where: str | None, output: Path) -> None:
    """Write the verdicts of the tracking server's runs to a JSON file and print them as a markdown table."""
    from whisperbench.files import cache_directory
    from whisperbench.tracking.client import connect
    from whisperbench.tracking.read import find_runs, read_transcripts

    client = connect()
    newest = {tuple(sorted(run.params.items())): run for run in sorted(find_runs(client, None, where), key=_start)}
    transcripts = read_transcripts(client, [run.run_id for run in newest.values()], cache_directory() / "transcripts")
    rows = []
    for runs in _comparable(newest.values(), setting).values():
        exact = next((run for run in runs if run.params[setting] == reference), None)
        for run in runs if exact else ():
            rows += compared(run, setting, transcripts[run.run_id] or (), transcripts[exact.run_id] or ())
    path = output / f"{slug(rows[0]['gpu_name'])}-accuracy-{setting}.json"
    path.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
    click.echo("\n".join(table(rows, setting)))


def compared(
    run: RunRecord, setting: str, found: Sequence[UtteranceResult], exact: Sequence[UtteranceResult]
) -> list[Row]:
    """One row per corpus: the WER of a run and its difference from the reference run with a verdict per margin."""
    from whisperbench.stats.paired import PairedErrors

    texts = {utterance.utt_id: utterance for utterance in exact}
    rows = []
    for corpus, utterances in _by_corpus(found).items():
        pairs = [(texts[u.utt_id], u) for u in utterances if u.units is not None]
        row: Row = {
            "model": Path(run.params["model"]).name,
            **{name: run.params[name] for name in (*SAME_IN_ALL_RUNS, setting) if name in run.params},
            "commit": run.tags.get(COMMIT),
            "corpus": corpus,
            "utterances": len(utterances),
            "units": sum(u.units or 0 for _, u in pairs),
            "errors": sum(u.errors or 0 for _, u in pairs),
            "equal_texts": sum(before.hypothesis == after.hypothesis for before, after in pairs),
            "repetition_loops": sum(u.repetition_loop for u in utterances),
        }
        if row["units"]:
            errors = [[pair[side].errors or 0 for pair in pairs] for side in (0, 1)]
            paired = PairedErrors.of(errors, [u.units or 0 for _, u in pairs], [u.speaker for _, u in pairs])
            row["wer"] = round(100 * row["errors"] / row["units"], 3)
            for margin in MARGINS:
                difference = paired.difference(1, 0, margin=margin)
                row["difference"] = [round(v, 3) for v in (difference.difference, difference.low, difference.high)]
                row["scope"] = difference.scope
                row[f"within_{margin:g}"] = difference.outcome
        rows.append(row)
    return rows


def table(rows: Sequence[Row], setting: str) -> list[str]:
    """A markdown table with one line per model, corpus and value of the setting."""
    lines = [f"| model | corpus, units | `{setting}` | WER % | difference in points, 95 % | verdict | loops |"]
    lines.append("|---|---|--:|--:|---|---|--:|")
    for row in rows:
        if "wer" not in row:
            continue
        difference, low, high = row["difference"]
        limits = f"{difference:+.2f} ({low:+.2f} to {high:+.2f})" if difference or low != high else ""
        cells = (
            row["model"], f"{row['corpus']}, {row['units']:,}", row[setting], f"{row['wer']:.2f}", limits,
            verdict(row), row["repetition_loops"],
        )  # fmt: skip
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return lines


def verdict(row: Row) -> str:
    """The outcome at the smallest margin that decides."""
    for margin in MARGINS:
        outcome = row[f"within_{margin:g}"]
        if outcome in ("same", "not worse"):
            return f"{outcome} within {margin:g}"
        if outcome in ("better", "worse"):
            return str(outcome)
    return "undecided"


def _by_corpus(utterances: Iterable[UtteranceResult]) -> Mapping[str, list[UtteranceResult]]:
    groups: dict[str, list[UtteranceResult]] = collections.defaultdict(list)
    for utterance in utterances:
        groups[utterance.utt_id.partition("/")[0]].append(utterance)
    return groups


def _comparable(runs: Iterable[RunRecord], setting: str) -> Mapping[Any, list[RunRecord]]:
    """Groups of runs of one model and data set that differ in the setting alone."""
    groups: dict[Any, list[RunRecord]] = collections.defaultdict(list)
    for run in runs:
        if setting in run.params:
            same = [run.params.get(name) for name in SAME_IN_ALL_RUNS if name != setting]
            groups[run.params["model"], run.accuracy_key, *same].append(run)
    return groups


def _start(run: RunRecord) -> Any:
    return run.start_time


if __name__ == "__main__":
    main()
