"""Measure a grid of configurations, or search for the best one: a child run each under one parent run.

\b
  mlflow run . -e sweep -P models=large-v3,large-v3-turbo -P kv_cache_dtypes=auto,fp8 -P max_num_seqs=128,256
  mlflow run . -e sweep -P grid=published                       the six settings of the published table
  mlflow run . -e sweep -P grid=published -P dry_run=true       what would run, and for how long
  mlflow run . -e sweep -P objective=reqs_per_sec -P max_wer=2.5 -P max_num_seqs=64..512 -P kv_cache_dtypes=auto,fp8

The same command again measures only what has not been finished, whatever ended the first one.  A
configuration that fails is a FAILED child run with its cause and its log, and the sweep goes on.
The leaderboard of the sweep goes to stdout, progress to stderr.  Exit status 1 if anything failed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows import compare, console
from flows.benchmark import CACHE, PROJECT
from flows.cli import errors_end_the_command, options_of
from flows.lifetime import LAUNCHER, TrackedRun, tracked_run
from flows.watching import Watch
from whisperbench import children, record, runs, stale, tracking
from whisperbench.child_process import run_to_end
from whisperbench.columns import Links
from whisperbench.config import text_of
from whisperbench.errors import ConfigError, TrackingError, WhisperbenchError
from whisperbench.gpu import detect_hardware
from whisperbench.grid import Task, command_line, configurations_of, schedule, sweep_digest
from whisperbench.identity import Identities, engine_version
from whisperbench.ledger import Ledger
from whisperbench.progress import Line, Progress, clock
from whisperbench.search import Best, Search, first_rung, search
from whisperbench.selection import CompareConfig, ComparisonError
from whisperbench.sweep_config import SweepConfig, SweepOptions

if TYPE_CHECKING:
    from mlflow import MlflowClient

BENCHMARK = (sys.executable, "-m", "flows.benchmark")
ORPHAN_SECONDS = 60


class SweepError(WhisperbenchError):
    """A sweep got to its end, but not everything in it succeeded."""


@click.command(help=__doc__)
@options_of(SweepConfig)
@errors_end_the_command
def main(**options: Any) -> None:
    sweep(SweepConfig(**options))


def sweep(options: SweepOptions, command: Sequence[str] = BENCHMARK, vllm_version: str | None = None) -> None:
    """Measure what `options` ask for.

    `command` measures one configuration, with a vLLM of `vllm_version` (None: the one that is installed).
    """
    client = tracking.connect()
    hardware = detect_hardware(os.environ.get("CUDA_VISIBLE_DEVICES"))
    identities = Identities(hardware, vllm_version or engine_version(), CACHE, console.bar)
    plan: tuple[Task, ...] | Search
    if options.searches:
        plan = Search.of(options)
        digest = sweep_digest(
            [plan.config(plan.first)], space=plan.space, objective=options.objective, bound=plan.max_wer
        )
    else:
        configurations = configurations_of(options)
        digest = sweep_digest(configurations)
        plan = schedule(configurations, options.repeats, options.order, options.one.seed)
    experiment = experiment_now(client)
    earlier = children.finished_children(client, experiment) if experiment else []
    ledger = Ledger(identities, earlier, resume=options.resume, repeats=options.repeats_in_a_run)
    if options.dry_run:
        forecast(plan, ledger)
        return
    unfinished = clean_up(client, experiment, digest) if experiment else None
    if unfinished and options.resume and "MLFLOW_RUN_ID" not in os.environ:
        console.say(f"continuing sweep {unfinished}")
        children.reopen(client, unfinished)
    else:
        unfinished = None
    tags = {record.KIND: "sweep", record.SCHEMA_TAG: record.SCHEMA, children.SWEEP_DIGEST: digest}
    with tracked_run(client, f"sweep-{digest[:8]}", tags, unfinished) as run:
        params = {name: text_of(getattr(options, name)) for name in options.__dataclass_fields__}
        children.log_params(client, run.run_id, params)
        work = Work(run, options, command, ledger)
        console.say(run.where())
        if isinstance(plan, Search):
            work.search(plan, digest)
        else:
            work.measure_all(plan)


def experiment_now(client: MlflowClient) -> str | None:
    """The id of the experiment that this sweep's runs belong to; None while there is none of that name."""
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        return children.experiment_of(client, run_id)
    return children.experiment_id(client, os.environ.get("MLFLOW_EXPERIMENT_NAME"))


def clean_up(client: MlflowClient, experiment: str, digest: str) -> str | None:
    """Close what dead processes left RUNNING, and wait for what they left working; the sweep that was cut off."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while (working := children.orphans(client, experiment)) and time.monotonic() < deadline:
        console.say(f"waiting for {len(working)} process(es) of a sweep that was killed to end")
        time.sleep(1)
    for closed in stale.close_stale_runs(client):
        console.say(f"closed run {closed.run_id} ({closed.name}): its process {closed.process.pid} is dead")
    return children.interrupted_sweep(client, experiment, digest)


class Work:
    """A sweep that runs: its parent run, and a process and a child run for each thing to measure."""

    def __init__(self, run: TrackedRun, options: SweepOptions, command: Sequence[str], ledger: Ledger) -> None:
        self.run, self.client, self.options, self.command, self.ledger = run, run.client, options, command, ledger
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
            causes = "; ".join(f"{line.name}: {line.failure}" for line in progress.lines if line.state == "failed")
            raise SweepError(f"{progress.sentence}. {causes}")
        console.say(progress.sentence)

    def search(self, wanted: Search, digest: str) -> None:
        identity = self.ledger.identities.of(wanted.config(wanted.first))
        name = f"{self.options.objective}-{sweep_digest([], sweep=digest, identity=identity)}"
        name += "" if self.options.resume else f"-{self.run.run_id}"
        progress = Progress([], planned=wanted.trials)
        with Watch(progress) as watch:

            def evaluate(settings: Mapping[str, str], limit: int | None) -> Mapping[str, float] | None:
                name = ",".join(f"{option}={value}" for option, value in settings.items())
                try:
                    task = Task(wanted.config(settings, limit), 1, name if limit is None else f"{name} (first {limit})")
                except ConfigError as error:
                    progress.lines.append(Line(name, 1, state="failed", failure=str(error)))
                    watch.changed(progress.lines[-1])
                    return None
                line = self.ledger.line(task)
                progress.lines.append(line)
                if line.state == "waiting":
                    self.measure(task, line, progress, watch, first_rung=limit is not None)
                else:
                    watch.changed(line)
                return line.metrics if line.state in ("done", "skipped") else None

            best = search(
                wanted,
                evaluate,
                storage=Path(self.options.one.results_dir) / "search.db",
                name=name,
                rung=lambda metrics: first_rung(metrics, wanted.most_seqs),
            )
        self.conclude(progress)
        self.announce(wanted, best, progress)

    def measure(self, task: Task, line: Line, progress: Progress, watch: Watch, *, first_rung: bool = False) -> None:
        """One process, one child run: FINISHED by itself, or closed here with its cause and its log."""
        line.run_id = run_id = children.open_child(self.client, self.run.run_id, task, first_rung=first_rung)
        line.state = "running"
        watch.changed(line)
        self.log_progress(progress)
        log = self.directory / run_id / "benchmark.log"
        log.parent.mkdir()

        def tick(seconds: float) -> None:
            line.seconds = seconds
            watch.tick()

        arguments = [f"--{name}={value}" for name, value in task.config.as_params().items()]
        try:
            ended = run_to_end(
                [*self.command, *arguments],
                env=self.environment(run_id),
                log=log,
                time_limit_seconds=60 * self.options.time_limit_minutes,
                tick=tick,
            )
        except BaseException:
            with contextlib.suppress(TrackingError):
                if children.state_of(self.client, run_id).status == "RUNNING":
                    tracking.close_run(self.client, run_id, "KILLED", "its sweep was stopped")
            raise
        state = children.state_of(self.client, run_id)
        line.seconds = ended.seconds
        if state.status == "FINISHED":
            line.state, line.metrics = "done", state.metrics
        else:
            line.state, line.failure = "failed", children.close_failed(self.client, run_id, ended)
        watch.changed(line)
        self.log_progress(progress)

    def environment(self, run_id: str) -> dict[str, str]:
        """Of a configuration's process: its own run, this source whatever the working directory, and who watches it."""
        path = [str(PROJECT / "src"), str(PROJECT), os.environ.get("PYTHONPATH", "")]
        given = {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_NAME"}
        return {
            **given,
            "MLFLOW_TRACKING_URI": str(self.client.tracking_uri),
            "MLFLOW_RUN_ID": run_id,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            LAUNCHER: str(os.getpid()),
        }

    def log_progress(self, progress: Progress) -> None:
        """Counts and table in the parent run; a server that is away for a moment does not end the sweep."""
        step = progress.count("done", "failed", "skipped", "pruned")
        with contextlib.suppress(TrackingError):
            children.log_progress(self.client, self.run.run_id, progress.metrics, progress.markdown(), step)

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
            files = compare.leaderboard(self.client, records, config, Links(runs.ui_address(self.client)), "this sweep")
        except ComparisonError as error:
            console.say(f"no leaderboard: {error}")
            return
        paths = [self.directory / name for name in files]
        for path, text in zip(paths, files.values(), strict=True):
            path.write_text(text, encoding="utf-8")
        runs.log_files(self.client, self.run.run_id, paths)

    def announce(self, wanted: Search, best: Best | None, progress: Progress) -> None:
        console.say(progress.sentence)
        if best is None:
            bound = f" with a WER of at most {wanted.max_wer} %" if wanted.max_wer else ""
            raise SweepError(f"No setting could be measured{bound}: {progress.sentence}.")
        winner = command_line(wanted.config(best.settings))
        children.log_params(self.client, self.run.run_id, {"best_command": winner})
        settings = progress.count("done", "skipped")
        click.echo(f"{wanted.sorting.metric}: {best.value:.2f} | best of {settings} settings\n{winner}")


def forecast(plan: tuple[Task, ...] | Search, ledger: Ledger) -> None:
    """What would run, what is done, and how long the rest takes going by earlier runs."""
    if isinstance(plan, Search):
        for name, values in plan.space.items():
            click.echo(f"{name}: {values}")
        first = ledger.line(Task(plan.config(plan.first), 1, "first setting"))
        progress = Progress([first], planned=plan.trials)
    else:
        progress = Progress([ledger.line(task) for task in plan])
        click.echo(progress.markdown())
    remaining = progress.remaining_seconds
    click.echo(
        f"time: {'unknown, nothing like some of them was measured before' if remaining is None else clock(remaining)}"
    )


if __name__ == "__main__":
    main()
