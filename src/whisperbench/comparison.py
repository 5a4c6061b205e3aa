"""From a tracking server to leaderboards, to what changed between two runs, or to the verdict of a regression gate."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from whisperbench.compare.difference import Clip, clips, difference, playable, worst_first
from whisperbench.compare.document import Part
from whisperbench.compare.gate import GateCase, gate_case, judge
from whisperbench.compare.groups import Group, Grouping, differences
from whisperbench.compare.paired_tests import compare_contenders, paired_test
from whisperbench.compare.plot import pareto_svg
from whisperbench.compare.published import counterparts
from whisperbench.compare.rank import Leaderboard, rank, tested_systems
from whisperbench.compare.render import (
    as_markdown,
    difference_html,
    leaderboard_csv,
    leaderboard_html,
    leaderboard_json,
)
from whisperbench.compare.report import Report, title
from whisperbench.compare.rescore import rank_changes, rescore
from whisperbench.compare.select import priced, selects, unused_prices
from whisperbench.config.compare import CompareConfig
from whisperbench.errors import ComparisonError, WhisperbenchError
from whisperbench.files import cache_directory
from whisperbench.measure.score import Normalizer
from whisperbench.progress import Listener
from whisperbench.results.links import Links
from whisperbench.results.names import KIND, SCHEMA, SCHEMA_TAG
from whisperbench.results.record import RunRecord
from whisperbench.results.transcripts import StoredTranscripts
from whisperbench.stats.paired import PairedTest
from whisperbench.text import escape_control, without_password
from whisperbench.tracking import read
from whisperbench.tracking.client import Client, connect, ui_address
from whisperbench.tracking.runs import log_files
from whisperbench.tracking.tracked_run import tracked_run

EXPERIMENT = "whisperbench-compare"
"""Where comparisons are logged, apart from the runs that they compare; under `mlflow run` it has chosen before."""

Files = dict[str, str]
"""File name to text."""


def compare(options: CompareConfig, listener: Listener, echo: Callable[[str | Sequence[Part]], None]) -> int:
    """Compare the runs that were asked for; the exit status, which is 1 where the gate finds a regression.

    `echo` gets the result as soon as it is known, the gate's as a sentence; then the files are written and logged as
    a compare run.

    Raises:
        ComparisonError: there are no such runs, they may not be compared, or results_dir cannot be written.
        TrackingError: the server went away or refused.
    """
    client = connect()
    if options.baseline is not None:
        verdict, regression = gate(client, options, options.baseline, listener)
        echo(verdict)
        return int(regression)
    links = Links(ui_address(client))
    if options.run_ids:
        a, b = read.get_runs(client, options.run_ids)
        transcripts = fetch(client, (a, b), listener)
        normalize = Normalizer(a.params.get("language", "en"))
        found = difference(a, b, transcripts[a.run_id], transcripts[b.run_id], options.seed, normalize)
        changed = [each.a.utt_id for each in found.utterances]
        wavs = read.read_clips(client, (a.run_id, b.run_id), changed, cache_directory() / "samples")
        parts = found.parts(links)
        files = {
            "difference.md": as_markdown(parts),
            "difference.html": difference_html(found, links, {utt_id: playable(wav) for utt_id, wav in wavs.items()}),
        }
        echo(parts)
        listener.show(found)
    else:
        records = find(client, options)
        report = leaderboard(client, records, options, links, options.scope, listener)
        files = files_of(report)
        echo(report.parts if options.full else report.answer)
    write_and_log(client, Path(options.results_dir), files, listener)
    return 0


def leaderboard(
    client: Client,
    records: Sequence[RunRecord],
    options: CompareConfig,
    links: Links,
    searched: str,
    listener: Listener,
) -> Report:
    """Leaderboards of these runs; `searched` says where the runs are from.

    Raises:
        ComparisonError: none of the runs can be ranked.
        TrackingError: the server went away.
    """
    for name in unused_prices(options.price_of, records):
        gpus = ", ".join(sorted({record.gpu for record in records}))
        listener.warned(f"prices: no run was measured on {name!r}. GPUs found: {gpus}")
    records = [priced(record, options.price_of) for record in records]
    grouping = Grouping.of(records, options.sort)
    if not grouping.groups:
        reasons = "; ".join(sorted({each.reason for each in grouping.left_out}))
        raise ComparisonError(f"None of the {len(records)} runs found can be ranked: {reasons}.")
    boards = rank_all(grouping.groups, options, lambda wanted: fetch(client, wanted, listener))
    changes = None
    if options.rescore:
        runs, known = rescore_all(client, records, options.seed, listener)
        grouping = Grouping.of(runs, options.sort)
        before = boards
        boards = rank_all(grouping.groups, options, lambda wanted: {r.run_id: known.get(r.run_id) for r in wanted})
        changes = rank_changes(before, boards)
    measured = [s for g in (*grouping.groups, *grouping.alone) for s in g.systems]
    published = () if options.published == "none" else counterparts(measured, every=options.published == "all")
    heard = worst_clips(client, boards[0].rows[0].system.typical, listener)
    alone = tuple(
        rank(group, options.sort, {}, differs=differences(grouping.groups[0], group)) for group in grouping.alone
    )
    return Report(boards, alone, grouping.left_out, published, changes, heard, links, searched)


def files_of(report: Report) -> Files:
    """A report as files ready to be written."""
    main = report.boards[0]
    return {
        "leaderboard.md": as_markdown(report.parts),
        "leaderboard.csv": leaderboard_csv(report),
        "leaderboard.json": leaderboard_json(report),
        "leaderboard.html": leaderboard_html(report),
        "pareto.svg": pareto_svg(main, report.published, title(main)) or "",
    }


def worst_clips(client: Client, run: RunRecord, listener: Listener) -> tuple[Clip, ...]:
    """The utterances with most errors of those that the run holds the audio of; none without transcripts."""
    if run.metric("wer") is None or not (stored := fetch(client, (run,), listener)[run.run_id]):
        return ()
    wavs = read.read_clips(client, (run.run_id,), worst_first(stored), cache_directory() / "samples")
    return clips(stored, wavs, Normalizer(run.params.get("language", "en")))


def rank_all(
    groups: Sequence[Group],
    options: CompareConfig,
    transcripts_of: Callable[[Sequence[RunRecord]], Mapping[str, StoredTranscripts | None]],
) -> tuple[Leaderboard, ...]:
    """Each group ranked; transcripts are asked for only where a paired test needs them."""
    needed = [s.typical for group in groups if len(rivals := tested_systems(group)) > 1 for s in rivals]
    transcripts = transcripts_of(needed)
    main = groups[0]
    return tuple(
        rank(
            group,
            options.sort,
            compare_contenders(group, transcripts, options.seed),
            differs=() if group is main else differences(main, group),
        )
        for group in groups
    )


def rescore_all(
    client: Client, records: Sequence[RunRecord], seed: int, listener: Listener
) -> tuple[list[RunRecord], dict[str, StoredTranscripts]]:
    """All runs, scored again if they have a WER and transcripts, and the new transcripts by run id."""
    scored = [r for r in records if r.metric("wer") is not None]
    transcripts = fetch(client, scored, listener)
    again = {}
    with listener.counting("scoring again", len(scored), "runs/sec") as done:
        for count, each in enumerate(scored, 1):
            if (new := rescore(each, transcripts[each.run_id], seed)) is not None:
                again[each.run_id] = new
            done(count)
    if len(again) < len(scored):
        listener.said(f"{len(scored) - len(again)} of {len(scored)} runs keep their old score: no transcripts")
    runs = [again[r.run_id][0] if r.run_id in again else r for r in records]
    return runs, {run_id: stored for run_id, (_, stored) in again.items()}


def gate(client: Client, options: CompareConfig, baseline: str, listener: Listener) -> tuple[str, bool]:
    """The verdict on the newest run (or the one that was named), and whether it is worse than the baseline.

    Raises:
        ComparisonError: for every error of a comparison, so that exit status 1 means worse and nothing else.
    """
    try:
        candidate_id = read.whole_id(client, options.run_ids[0]) if options.run_ids else None
        found = gate_case(find(client, options), baseline, candidate_id)
        verdict = judge(found, gate_test(client, found, options.seed, listener), options.max_slowdown)
    except WhisperbenchError as error:
        if error.exit_status == 1:
            raise ComparisonError(str(error)) from error
        raise
    return escape_control(verdict.sentence), verdict.regression


def gate_test(client: Client, found: GateCase, seed: int, listener: Listener) -> PairedTest | str | None:
    """The paired test of candidate and baseline, why there is none, or None where neither has a WER."""
    candidate, baseline = found.candidate, found.baseline.typical
    if candidate.metric("wer") is None and baseline.metric("wer") is None:
        return None
    transcripts = fetch(client, (candidate, baseline), listener)
    return paired_test(transcripts[candidate.run_id], transcripts[baseline.run_id], seed)


def find(client: Client, options: CompareConfig) -> list[RunRecord]:
    """The runs that were asked for.

    Raises:
        ComparisonError: there are none; says what was searched and how to make one.
    """
    found = [r for r in read.find_runs(client, options.experiment_names, options.filter) if selects(options, r)]
    if not found:
        raise ComparisonError(
            f"No finished benchmark run was found in {options.scope} of "
            f"{without_password(client.tracking_uri)}. Make one: mlflow run . -P model=demo -P corpus=demo"
        )
    return found


def fetch(client: Client, wanted: Sequence[RunRecord], listener: Listener) -> dict[str, StoredTranscripts | None]:
    """The transcripts of these runs by run id; None for a run without readable ones."""
    if not wanted:
        return {}
    with listener.counting("fetching transcripts", len(wanted), "runs/sec") as done:
        read_so_far = itertools.count(1)
        kept = cache_directory() / "transcripts"
        return read.read_transcripts(client, [r.run_id for r in wanted], kept, lambda: done(next(read_so_far)))


def write_and_log(client: Client, directory: Path, files: Files, listener: Listener) -> None:
    """The files in `directory`, then as artifacts of a compare run."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        paths = [directory / name for name in files]
        for path, text in zip(paths, files.values(), strict=True):
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ComparisonError(f"results_dir={directory} cannot be written: {error}.") from error
    with tracked_run(client, "compare", {KIND: "compare", SCHEMA_TAG: SCHEMA}, experiment=EXPERIMENT) as run:
        log_files(client, run.run_id, paths)
    listener.said(f"files: {', '.join(map(str, paths))}\n{run.where()}")
