"""Compare the runs of a team: leaderboards, significance, what changed, and a regression gate.

\b
  mlflow run . -e compare                                       every finished run on the tracking server
  mlflow run . -e compare -P sort=reqs_per_sec -P gpu='*H100*'
  mlflow run . -e compare -P runs=<id>,<id>                     what changed between two runs
  python -m flows.compare --baseline large-v3-fp8-256           for CI: is the newest run worse?
  mlflow run . -e compare -P rescore=true                       with today's normaliser

Tables go to stdout as markdown, everything else to stderr.  Files are written to results_dir and logged as
artifacts of a compare run.  Exit status with baseline: 0 as good, 1 worse, 2 not comparable, 3 no server
(`mlflow run` makes every failure 1, so CI calls the module, with PYTHONPATH=src).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.terminal import console
from flows.terminal.command import errors_end_the_command, options_of
from flows.terminal.transcripts import to_terminal
from whisperbench.compare import report, report_html, tables
from whisperbench.compare.columns import Links
from whisperbench.compare.difference import Difference, difference
from whisperbench.compare.gate import Contest, contest, judge
from whisperbench.compare.leaderboard import Board, Group, Grouping, contenders, differences, rank
from whisperbench.compare.paired_tests import compare_contenders, paired_test
from whisperbench.compare.plot import pareto_svg
from whisperbench.compare.published import beside
from whisperbench.compare.rescoring import Rescored, rank_changes, rescore
from whisperbench.compare.selection import selects
from whisperbench.errors import ComparisonError, WhisperbenchError
from whisperbench.files import cache_directory
from whisperbench.measure.alignment import align
from whisperbench.measure.bootstrap import PairedTest
from whisperbench.measure.score import Normalizer
from whisperbench.options import CompareConfig
from whisperbench.results import names
from whisperbench.results.run_record import RunRecord
from whisperbench.results.transcripts import StoredTranscripts
from whisperbench.text import visible, without_password
from whisperbench.tracking import read as runs
from whisperbench.tracking import write as tracking
from whisperbench.tracking.connection import connect, ui_address
from whisperbench.tracking.tracked_run import tracked_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

CACHE = cache_directory() / "transcripts"

Files = dict[str, str]


@click.command(help=__doc__)
@options_of(CompareConfig)
@errors_end_the_command
def main(**options: Any) -> None:
    config = CompareConfig(**options)
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout is for the tables
    client = connect()
    links = Links(ui_address(client))
    if config.gates:
        sys.exit(gate(client, config))
    compare = compare_two if config.run_ids else compare_all
    files = compare(client, config, links)
    write_and_log(client, Path(config.results_dir), files)


def compare_all(client: MlflowClient, config: CompareConfig, links: Links) -> Files:
    """Leaderboards of everything that was found, ready to be written."""
    return leaderboard(client, find(client, config), config, links, config.searched)


def leaderboard(
    client: MlflowClient, records: Sequence[RunRecord], config: CompareConfig, links: Links, searched: str
) -> Files:
    """Leaderboards of these runs, printed, and as files ready to be written; `searched` says where they are from."""
    grouping = Grouping.of(records, config.sort)
    if not grouping.groups:
        reasons = "; ".join(sorted({each.reason for each in grouping.left_out}))
        raise ComparisonError(f"None of the {len(records)} runs found can be ranked: {reasons}.")
    boards = rank_all(grouping.groups, config, lambda wanted: fetch(client, wanted))
    changes = None
    if config.rescore:
        again = rescore_all(client, records, config.seed)
        grouping = Grouping.of([again[r.run_id].run if r.run_id in again else r for r in records], config.sort)
        known = {run_id: each.transcripts for run_id, each in again.items()}
        before = boards
        boards = rank_all(grouping.groups, config, lambda wanted: {r.run_id: known.get(r.run_id) for r in wanted})
        changes = rank_changes(before, boards)
    references = beside([c for g in grouping.groups for c in g.configurations]) if config.references else ()
    found = tables.Report(boards, grouping.left_out, references, changes, links, searched)
    text = report.leaderboard_markdown(found)
    click.echo(text)
    return {
        "leaderboard.md": text,
        "leaderboard.csv": report.leaderboard_csv(found),
        "leaderboard.json": report.leaderboard_json(found),
        "leaderboard.html": report_html.leaderboard_html(found),
        "pareto.svg": pareto_svg(boards[0], references) or "",
    }


def rank_all(
    groups: Sequence[Group],
    config: CompareConfig,
    transcripts_of: Callable[[Sequence[RunRecord]], Mapping[str, StoredTranscripts | None]],
) -> tuple[Board, ...]:
    """Each group ranked; transcripts are asked for only where a paired test needs them."""
    needed = [c.typical for group in groups if len(rivals := contenders(group)) > 1 for c in rivals]
    transcripts = transcripts_of(needed)
    main = groups[0]
    return tuple(
        rank(
            group,
            config.sort,
            compare_contenders(group, transcripts, config.seed),
            differs=() if group is main else differences(main, group),
        )
        for group in groups
    )


def rescore_all(client: MlflowClient, records: Sequence[RunRecord], seed: int) -> dict[str, Rescored]:
    """Every run that has a WER and its transcripts, scored again; the others are counted on stderr."""
    scored = [r for r in records if r.metric("wer") is not None]
    transcripts = fetch(client, scored)
    again = {}
    with console.bar("scoring again", len(scored), "runs/sec") as bar:
        for each in scored:
            if (new := rescore(each, transcripts[each.run_id], seed)) is not None:
                again[each.run_id] = new
            bar.advance()
    if len(again) < len(scored):
        console.say(f"{len(scored) - len(again)} of {len(scored)} runs keep their old score: no transcripts")
    return again


def compare_two(client: MlflowClient, config: CompareConfig, links: Links) -> Files:
    """What changed from the first run to the second."""
    a, b = runs.get_runs(client, config.run_ids)
    transcripts = fetch(client, (a, b))
    found = difference(a, b, transcripts[a.run_id], transcripts[b.run_id], config.seed)
    normalize = Normalizer(a.params.get("language", "en"))
    text = report.difference_markdown(found, links)
    click.echo(text)
    show_utterances(found, normalize)
    return {"difference.md": text, "difference.html": report_html.difference_html(found, links, normalize)}


def show_utterances(found: Difference, normalize: Callable[[str], str]) -> None:
    """The utterances that changed most, aligned, in colour where stderr is a terminal."""
    for each in found.utterances:
        console.say(f"\n{visible(each.a.utt_id)}  {each.change:+d} errors")
        reference = normalize(each.a.reference or "").split()
        for run, utterance in ((found.a, each.a), (found.b, each.b)):
            console.say(f"  {visible(run.name)} {run.run_id[:8]}")
            console.stderr.print(to_terminal(align(reference, normalize(utterance.hypothesis).split())))


def gate(client: MlflowClient, config: CompareConfig) -> int:
    """0 as good as the baseline, 1 worse; every error of the comparison is status 2, so that 1 means worse only."""
    try:
        records = find(client, config)
        candidate_id = config.run_ids[0] if config.run_ids else None
        found = contest(records, config.baseline, candidate_id)
        verdict = judge(found, gate_test(client, found, config.seed), config.max_slowdown)
    except WhisperbenchError as error:
        if error.exit_status == 1:
            raise ComparisonError(str(error)) from error
        raise
    click.echo(visible(verdict.sentence))
    return int(verdict.regression)


def gate_test(client: MlflowClient, found: Contest, seed: int) -> PairedTest | str | None:
    candidate, baseline = found.candidate, found.baseline.typical
    if candidate.metric("wer") is None and baseline.metric("wer") is None:
        return None
    transcripts = fetch(client, (candidate, baseline))
    return paired_test(transcripts[candidate.run_id], transcripts[baseline.run_id], seed)


def find(client: MlflowClient, config: CompareConfig) -> list[RunRecord]:
    """The runs that were asked for.

    Raises:
        ComparisonError: there are none; says what was searched and how to make one.
    """
    found = [r for r in runs.find_runs(client, config.experiment_names, config.filter_text) if selects(config, r)]
    if not found:
        raise ComparisonError(
            f"No finished benchmark run was found in {config.searched} of "
            f"{without_password(client.tracking_uri)}. Make one: mlflow run . -P model=demo -P corpus=demo"
        )
    return found


def fetch(client: MlflowClient, wanted: Sequence[RunRecord]) -> dict[str, StoredTranscripts | None]:
    if not wanted:
        return {}
    with console.bar("fetching transcripts", len(wanted), "runs/sec") as bar:
        return runs.read_transcripts(client, [r.run_id for r in wanted], CACHE, bar.advance)


def write_and_log(client: MlflowClient, directory: Path, files: Files) -> None:
    """The files in `directory`, then as artifacts of a compare run."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        paths = [directory / name for name in files]
        for path, text in zip(paths, files.values(), strict=True):
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ComparisonError(f"results_dir={directory} cannot be written: {error}.") from error
    with tracked_run(client, "compare", {names.KIND: "compare", names.SCHEMA_TAG: names.SCHEMA}) as run:
        tracking.log_files(client, run.run_id, paths)
    console.say(f"files: {', '.join(map(str, paths))}\n{run.where()}")


if __name__ == "__main__":
    main()
