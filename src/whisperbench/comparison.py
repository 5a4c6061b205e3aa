"""Comparison of runs on a tracking server: leaderboards, the difference of two runs, and a regression gate."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from whisperbench.compare import render
from whisperbench.compare.difference import AlignedUtterance, Difference
from whisperbench.compare.document import Part
from whisperbench.compare.gate import Verdict, gate_case, judge, matching_runs
from whisperbench.compare.groups import differences, group_fields, grouped, in_words
from whisperbench.compare.plot import pareto_svg
from whisperbench.compare.published import counterparts
from whisperbench.compare.rank import Leaderboard, rank, rank_changes
from whisperbench.compare.report import Report, title
from whisperbench.compare.select import price_warnings, priced, rescore, selects
from whisperbench.compare.verdicts import Verdicts, wer_difference
from whisperbench.config.compare import SORTINGS, CompareConfig
from whisperbench.config.option import Options
from whisperbench.errors import ComparisonError, WhisperbenchError
from whisperbench.files import cache_directory, write_text
from whisperbench.measure.normalizer import normalizer_of
from whisperbench.processes.watch import RUN_ID
from whisperbench.progress import Listener
from whisperbench.results.links import Links
from whisperbench.results.names import KIND, SCHEMA, SCHEMA_TAG
from whisperbench.results.record import RunRecord
from whisperbench.results.transcripts import StoredTranscripts
from whisperbench.text import without_password
from whisperbench.tracking import read
from whisperbench.tracking.client import Client, connect, ui_address
from whisperbench.tracking.runs import log_files, unused_run
from whisperbench.tracking.tracked_run import tracked_run

EXPERIMENT = "whisperbench-compare"
"""Experiment of compare runs, unless `mlflow run` has started the run in another one."""

Transcripts = Mapping[str, StoredTranscripts | None]
"""Transcripts by run id; None if a run's transcripts are absent or damaged."""


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison of the runs on one server; its methods raise a TrackingError if the server cannot be reached."""

    client: Client
    options: CompareConfig
    listener: Listener

    def find(self) -> list[RunRecord]:
        """The runs that the options select, with a warning for each damaged one.

        Raises:
            ComparisonError: no run was found.
        """
        options = self.options
        found = [r for r in read.find_runs(self.client, options.experiments, options.filter) if selects(options, r)]
        if not found:
            raise ComparisonError(
                f"No finished benchmark run was found on {without_password(self.client.tracking_uri)} (searched: "
                f"{options.scope}). Measure one first."
            )
        for run in found:
            if run.damaged:
                self.listener.warning(
                    f"Run {run.name} ({run.run_id}) is left out, because {run.damaged}. Delete the tag."
                )
        return found

    def transcripts(self, runs: Sequence[RunRecord]) -> Transcripts:
        """The transcripts of `runs`, which are stored in the cache directory."""
        if not runs:
            return {}
        with self.listener.counting("fetching transcripts", len(runs), "runs/sec") as advance:
            directory = cache_directory() / "transcripts"
            ids = [run.run_id for run in runs]
            return read.read_transcripts(self.client, ids, directory, advance)

    def audio(self, runs: Sequence[RunRecord], utt_ids: Sequence[str]) -> dict[str, str]:
        """Audio as data: URLs by utterance id, for utterances whose audio is stored with one of the runs."""
        ids = [run.run_id for run in runs]
        wavs = read.read_samples(self.client, ids, utt_ids, cache_directory() / "samples")
        return {utt_id: f"data:audio/wav;base64,{base64.b64encode(wav).decode()}" for utt_id, wav in wavs.items()}

    def gate(self, baseline: str) -> Verdict:
        """The verdict on the newest run and its repeats, or on the runs that the options name.

        Raises:
            ComparisonError: no verdict is possible; it also replaces errors with exit status 1, which is a regression.
        """
        margin = self.options.margin
        try:
            candidates = [run.run_id for run in read.get_runs(self.client, self.options.run_ids)]
            candidate, expected = gate_case(self.find(), baseline, candidates)
            wer = None
            if expected.wer is not None or candidate.wer is not None:
                before, after = expected.typical, candidate.typical
                found = self.transcripts((before, after))
                wer = wer_difference(found[before.run_id], found[after.run_id], margin)
            return judge(candidate, expected, baseline, wer, margin, self.options.max_slowdown)
        except WhisperbenchError as error:
            if error.exit_status == 1:
                raise ComparisonError(str(error)) from error
            raise

    def difference(self) -> tuple[Difference, dict[str, str]]:
        """The difference of the two runs that the options name, and the audio of its utterances by id."""
        a, b = read.get_runs(self.client, self.options.run_ids)
        normalize = normalizer_of(a.params.get("language", "en"))
        found = Difference.of((a, b), self.transcripts((a, b)), self.options.margin, normalize)
        return found, self.audio((a, b), [each.utterance.utt_id for each, _ in found.utterances])

    def leaderboard(self, records: Sequence[RunRecord], searched: str, origin: Mapping[str, str]) -> Report:
        """The leaderboards of `records`; `searched` describes where the runs were found.

        Raises:
            ComparisonError: no run can be ranked.
        """
        options = self.options
        for warning in price_warnings(options.price_of, records):
            self.listener.warning(warning)
        records = [priced(record, options.price_of) for record in records]
        boards, left_out = rank_all(records, options, self.transcripts)
        changes = None
        if options.rescore:
            before = boards
            rescored, transcripts = self.rescored(records)
            boards, left_out = rank_all(rescored, options, lambda _: transcripts)
            changes = rank_changes(before, boards)
        measured = [row.system for board in boards for row in board.rows]
        published = () if options.published == "none" else counterparts(measured, every=options.published == "all")
        worst, audio = self.worst_utterances(boards[0].rows[0].system.typical)
        links = Links(ui_address(self.client))
        return Report(boards, left_out, published, changes, worst, audio, links, searched, origin)

    def rescored(self, records: Sequence[RunRecord]) -> tuple[list[RunRecord], Transcripts]:
        """All runs, those with a WER and transcripts scored again, and the scored transcripts by run id."""
        scored = [run for run in records if run.wer is not None]
        transcripts, found = self.transcripts(scored), {}
        with self.listener.counting("scoring again", len(scored), "runs/sec") as advance:
            for run in scored:
                if new := rescore(run, transcripts[run.run_id]):
                    found[run.run_id] = new
                advance()
        if missing := len(scored) - len(found):
            self.listener.info(f"{missing} of {len(scored)} runs were not scored again: no transcripts")
        runs = [found[run.run_id][0] if run.run_id in found else run for run in records]
        return runs, {run_id: stored for run_id, (_, stored) in found.items()}

    def worst_utterances(self, run: RunRecord) -> tuple[tuple[AlignedUtterance, ...], dict[str, str]]:
        """The utterances with the most errors whose audio is stored with the run, and the audio by utterance id."""
        stored = self.transcripts((run,))[run.run_id] if run.wer is not None else None
        wrong = [each for each in stored or () if each.errors and each.reference is not None]
        worst = sorted(wrong, key=lambda each: (-(each.errors or 0), each.utt_id))
        audio = self.audio((run,), [each.utt_id for each in worst]) if worst else {}
        normalize = normalizer_of(run.params.get("language", "en"))
        return tuple(AlignedUtterance.of(each, normalize) for each in worst if each.utt_id in audio), audio


def compare(options: CompareConfig, listener: Listener, echo: Callable[[str | Sequence[Part]], None]) -> int:
    """Compare the selected runs and return the exit status, which is that of the gate's verdict, else 0.

    `echo` prints the result, which is the sentence of the gate or the parts of a report.  A report is also written to
    files and logged as a compare run.

    Raises:
        ConfigError: MLFLOW_RUN_ID names a run that holds a result.
        ComparisonError: no runs were found, they are not comparable, or results_dir cannot be written.
        TrackingError: the server cannot be reached or refuses a request.
    """
    client = connect()
    comparison = Comparison(client, options, listener)
    if options.baseline is not None:
        verdict = comparison.gate(options.baseline)
        echo(verdict.sentence)
        return verdict.status
    if RUN_ID in os.environ:
        unused_run(client, os.environ[RUN_ID])  # refused before the work
    origin = origin_of(client, "compare", options)
    if options.run_ids:
        links = Links(ui_address(client))
        found, audio = comparison.difference()
        parts = [*found.parts(links), *found.rest]
        page = render.difference_html(found, links, audio, origin)
        files = {"difference.md": render.as_markdown(parts), "difference.html": page}
        echo(parts)
        listener.show(found)
    else:
        report = comparison.leaderboard(comparison.find(), options.scope, origin)
        if options.sort not in ("wer", report.every[0].sort):
            hint = " Set prices=GPU=USD, such as prices=H100=2.10." if options.sort == "cost" else ""
            raise ComparisonError(
                f"sort={options.sort} is not possible, because no run has {SORTINGS[options.sort].metric}.{hint}"
            )
        files = files_of(report)
        echo(report.parts if options.full else report.answer)
    paths = write_files(Path(options.results_dir), files)
    with tracked_run(client, "compare", {KIND: "compare", SCHEMA_TAG: SCHEMA}, experiment=EXPERIMENT) as run:
        log_files(client, run.run_id, paths)
    listener.info(f"Files in {options.results_dir}: {', '.join(path.name for path in paths)}\n{run.where()}")
    return 0


def rank_all(
    records: Sequence[RunRecord], options: CompareConfig, transcripts_of: Callable[[Sequence[RunRecord]], Transcripts]
) -> tuple[tuple[Leaderboard, ...], list[tuple[RunRecord, str]]]:
    """The leaderboards, and the runs that are left out; `transcripts_of` is called for the runs whose WER is compared.

    Raises:
        ComparisonError: no run can be compared, or no run matches `options.reference`.
    """
    groups, left_out = grouped(records, options.sort)
    if not groups:
        reasons = "; ".join(sorted({reason for _, reason in left_out}))
        raise ComparisonError(f"The {len(records)} runs that were found cannot be compared: {reasons}.")
    named = set(matching_runs(records, options.reference)) if options.reference else set()
    compared = [systems for group in groups if len(systems := group.by_wer) > 1]
    transcripts = transcripts_of([system.typical for systems in compared for system in systems])
    boards = []
    for group in groups:
        reference = next((system for system in group.by_wer if named.intersection(system.runs)), None)
        verdicts = Verdicts.of(group, transcripts, options.margin, reference)
        differs = in_words(differences(groups[0].newest, group.newest, group_fields))
        boards.append(rank(group, options.sort, verdicts, differs=differs))
    return tuple(boards), left_out


def origin_of(client: Client, name: str, options: Options) -> dict[str, str]:
    """The command `whisperbench name` with the options that differ from their defaults, the time, and the store."""
    given = [f"--{option.replace('_', '-')} {shlex.quote(text)}" for option, text in options.changed().items()]
    return {
        "Command": " ".join(["whisperbench", name, *given]),
        "Created": f"{datetime.datetime.now(datetime.UTC):%d %B %Y, %H:%M} UTC".lstrip("0"),
        "Store": without_password(str(client.tracking_uri)),
    }


def files_of(report: Report) -> dict[str, str]:
    """Name and content of each file of a report."""
    main = report.every[0]
    return {
        "leaderboard.md": render.as_markdown(report.parts),
        "leaderboard.csv": render.leaderboard_csv(report),
        "leaderboard.json": render.leaderboard_json(report),
        "leaderboard.html": render.leaderboard_html(report),
        "pareto.svg": pareto_svg(main, report.published, title(main)) or "",
    }


def write_files(directory: Path, files: Mapping[str, str]) -> list[Path]:
    """Write files to `directory`, which is created if necessary, and return their paths.

    Raises:
        ComparisonError: the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_text(directory / name, content)
    except OSError as error:
        raise ComparisonError(f"results_dir={directory} cannot be written: {error}.") from error
    return [directory / name for name in files]
