"""What a sweep does while it runs: a process and a child run for each thing to measure, and the books of the parent."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import click

from flows import compare
from flows.terminal import console
from flows.terminal.sweep_table import Watch
from whisperbench.benchmark import PROJECT
from whisperbench.compare.columns import Links
from whisperbench.errors import ComparisonError, ConfigError, TrackingError, WhisperbenchError
from whisperbench.options import CompareConfig, SweepOptions
from whisperbench.results.run_record import run_path
from whisperbench.supervise.process_group import Ended, run_to_end
from whisperbench.sweep.grid import Task, command_line, sweep_digest
from whisperbench.sweep.progress import Line, Progress
from whisperbench.sweep.resume import Ledger
from whisperbench.sweep.search import Best, Search, first_rung, search
from whisperbench.tracking import read as runs
from whisperbench.tracking import sweep_runs as children
from whisperbench.tracking import write as tracking
from whisperbench.tracking.connection import ui_address
from whisperbench.tracking.tracked_run import TrackedRun

T = TypeVar("T")

OUTAGE_SECONDS, RETRY_SECONDS = 600.0, 10.0


class SweepError(WhisperbenchError):
    """A sweep got to its end, but not everything in it succeeded."""


class Work:
    """A sweep that runs: its parent run, and a process and a child run for each thing to measure."""

    def __init__(self, run: TrackedRun, options: SweepOptions, command: Sequence[str], ledger: Ledger) -> None:
        self.run, self.client, self.options, self.command, self.ledger = run, run.client, options, command, ledger
        self.experiment = children.experiment_of(run.client, run.run_id)
        self.directory = Path(options.one.results_dir) / f"sweep-{run.run_id[:8]}"
        self.directory.mkdir(parents=True, exist_ok=True)

    def measure_all(self, tasks: Sequence[Task]) -> None:
        self.ledger.must_have_work(tasks)
        progress = Progress([self.ledger.line(task) for task in tasks])
        with Watch(progress) as watch:
            for line, task in zip(progress.lines, tasks, strict=True):
                if line.state == "waiting":
                    self.measure(task, line, progress, watch)
                else:
                    watch.changed(line)
        self.conclude(progress)
        if progress.count("failed"):
            causes = "; ".join(
                f"{line.name}: {(line.failure or '').rstrip('.')}" for line in progress.lines if line.state == "failed"
            )
            raise SweepError(f"{progress.sentence}. {causes}")
        console.say(progress.sentence)

    def search(self, wanted: Search) -> None:
        """Measure what the search proposes: a line per setting, which a first look at it shares with the whole."""
        identity = self.ledger.identities.of(wanted.config(wanted.first))
        study = f"{self.options.objective}-{sweep_digest([], sweep=wanted.digest, identity=identity)}"
        study += "" if self.options.resume else f"-{self.run.run_id}"
        progress = Progress([], planned=wanted.most_settings)
        places: dict[str, int] = {}

        def line_for(task: Task) -> Line:
            line = self.ledger.line(task)
            place = places.setdefault(task.name, len(progress.lines))
            progress.lines[place : place + 1] = [line]
            return line

        with Watch(progress) as watch:

            def recall(settings: Mapping[str, str]) -> None:
                watch.changed(line_for(Task(wanted.config(settings), 1, described(settings))))

            def evaluate(settings: Mapping[str, str], limit: int | None) -> Mapping[str, float] | None:
                try:
                    config = wanted.config(settings, limit)
                except ConfigError as error:
                    console.say(f"{described(settings)} cannot be: {error}")
                    return None
                task = Task(config, 1, described(settings))
                line = line_for(task)
                if line.state == "waiting":
                    self.measure(task, line, progress, watch, first_rung=limit is not None)
                else:
                    watch.changed(line)
                if line.state == "failed":
                    return None
                if limit is not None:
                    line.state = "pruned"  # unless the whole is measured next
                    watch.changed(line)
                return line.metrics

            best = search(
                wanted,
                evaluate,
                storage=Path(self.options.one.results_dir) / "search.db",
                name=study,
                rung=lambda metrics: first_rung(metrics, wanted.most_seqs),
                recall=recall,
            )
        progress.planned = len(progress.lines)  # there may have been no more, or some that cannot be
        self.conclude(progress)
        self.announce(wanted, best, progress)

    def measure(self, task: Task, line: Line, progress: Progress, watch: Watch, *, first_rung: bool = False) -> None:
        """One process, one child run: FINISHED by itself, or closed here with its cause and its log."""
        line.run_id = run_id = patiently(
            lambda: children.open_child(self.client, self.run.run_id, task, first_rung=first_rung)
        )
        try:
            line.state = "running"
            watch.changed(line)
            self.log_progress(progress)
            ended = self.process(task, line, watch)
            state = patiently(lambda: children.state_of(self.client, run_id))
            line.seconds = ended.seconds
            if state.status == "FINISHED":
                line.state, line.metrics = "done", state.metrics
            else:
                line.failure = patiently(lambda: children.close_failed(self.client, run_id, ended))
                line.state = "failed"
        except BaseException:
            with contextlib.suppress(TrackingError):
                if children.state_of(self.client, run_id).status == "RUNNING":
                    tracking.close_run(self.client, run_id, "KILLED", "its sweep was stopped")
            raise
        watch.changed(line)
        self.log_progress(progress)

    def process(self, task: Task, line: Line, watch: Watch) -> Ended:
        """The process that measures one configuration, until nothing of it is left."""
        log = self.directory / str(line.run_id) / "benchmark.log"
        try:
            log.parent.mkdir()
        except OSError as error:
            raise SweepError(f"results_dir={self.options.one.results_dir} cannot be written: {error}.") from error

        def tick(seconds: float) -> None:
            line.seconds = seconds
            watch.tick()

        return run_to_end(
            [*self.command, *(f"--{name}={value}" for name, value in task.config.as_params().items())],
            env=self.environment(str(line.run_id)),
            log=log,
            time_limit_seconds=60 * self.options.time_limit_minutes,
            tick=tick,
        )

    def environment(self, run_id: str) -> dict[str, str]:
        """Of a configuration's process: its own run, and this source whatever the working directory."""
        path = [str(PROJECT / "src"), str(PROJECT), os.environ.get("PYTHONPATH", "")]
        given = {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_NAME"}
        return {
            **given,
            "MLFLOW_TRACKING_URI": str(self.client.tracking_uri),
            "MLFLOW_RUN_ID": run_id,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
        }

    def log_progress(self, progress: Progress) -> None:
        """Counts and table in the parent run; a server that is away for a moment does not end the sweep."""
        step = progress.count("done", "failed", "skipped", "pruned")
        with contextlib.suppress(TrackingError):
            note = progress.markdown(lambda run_id: run_path(self.experiment, run_id))
            children.log_progress(self.client, self.run.run_id, progress.metrics, note, step)

    def conclude(self, progress: Progress) -> None:
        """The leaderboard of everything that this sweep has measured or found finished."""
        self.log_progress(progress)
        ids = [line.run_id for line in progress.lines if line.state in ("done", "skipped") and line.run_id]
        if not ids:
            return
        records = runs.get_runs(self.client, ids)
        config = CompareConfig(
            sort=self.options.objective if self.options.searches else "wer",
            references=any(each.params.get("gpu_count", "0") != "0" for each in records),  # published rows are of GPUs
            seed=self.options.one.seed,
        )
        try:
            files = compare.leaderboard(self.client, records, config, Links(ui_address(self.client)), "this sweep")
        except ComparisonError as error:
            console.say(f"no leaderboard: {error}")
            return
        paths = [self.directory / name for name in files]
        for path, text in zip(paths, files.values(), strict=True):
            path.write_text(text, encoding="utf-8")
        tracking.log_files(self.client, self.run.run_id, paths)

    def announce(self, wanted: Search, best: Best | None, progress: Progress) -> None:
        console.say(progress.sentence)
        if best is None:
            bound = f" with a WER of at most {wanted.max_wer} %" if wanted.max_wer else ""
            raise SweepError(f"No setting could be measured{bound}: {progress.sentence}.")
        winner = command_line(wanted.config(best.settings))
        children.log_params(self.client, self.run.run_id, {"best_command": winner})
        settings = progress.count("done", "skipped")
        click.echo(f"{wanted.sorting.metric}: {best.value:.2f} | best of {settings} settings\n{winner}")


def described(settings: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in settings.items())


def patiently(ask: Callable[[], T]) -> T:
    """What `ask` returns; a tracking server that is away for some minutes does not end a night's sweep."""
    deadline, said = time.monotonic() + OUTAGE_SECONDS, False
    while True:
        try:
            return ask()
        except TrackingError as error:
            if time.monotonic() > deadline:
                raise
            if not said:
                console.say(f"{error} Trying again for {OUTAGE_SECONDS / 60:.0f} minutes …")
            said = True
            time.sleep(RETRY_SECONDS)
