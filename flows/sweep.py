"""Measure a grid of configurations, or search for the best one: a child run each under one parent run.

\b
  mlflow run . -e sweep -P models=large-v3,large-v3-turbo -P kv_cache_dtypes=auto,fp8 -P max_num_seqs=128,256
  mlflow run . -e sweep -P grid=published                       the six settings of the published table
  mlflow run . -e sweep -P grid=published -P dry_run=true       what would run, and for how long
  mlflow run . -e sweep -P objective=reqs_per_sec -P max_wer=2.5 -P max_num_seqs=64..512 -P kv_cache_dtypes=auto,fp8

The same command again measures only what has not been finished, whatever ended the first one.  A
configuration that fails is a FAILED child run with its cause and its log, and the sweep goes on.
The leaderboard of the sweep goes to stdout, progress to stderr.  Exit status 1 if a configuration of a grid
failed, or if a search found no setting.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from flows.sweep_work import Work
from flows.terminal import console
from flows.terminal.command import errors_end_the_command, options_of
from whisperbench.engines.start import hardware_of_the_engine
from whisperbench.files import cache_directory
from whisperbench.options import LISTS, SweepConfig, SweepOptions, text_of
from whisperbench.results import names
from whisperbench.sweep.grid import Task, configurations_of, schedule, sweep_digest
from whisperbench.sweep.identity import Identities, engine_version
from whisperbench.sweep.progress import Progress, clock
from whisperbench.sweep.resume import Ledger
from whisperbench.sweep.search import Search
from whisperbench.tracking import stale
from whisperbench.tracking import sweep_runs as children
from whisperbench.tracking.connection import connect
from whisperbench.tracking.tracked_run import tracked_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

BENCHMARK = (sys.executable, "-m", "flows.benchmark")
ORPHAN_SECONDS = 60


@click.command(help=__doc__)
@options_of(SweepConfig)
@errors_end_the_command
def main(**options: Any) -> None:
    sweep(SweepConfig(**options))


def sweep(options: SweepOptions, command: Sequence[str] = BENCHMARK, vllm_version: str | None = None) -> None:
    """Measure what `options` ask for.

    `command` measures one configuration, with a vLLM of `vllm_version` (None: the one that is installed).
    """
    plan = Search.of(options) if options.searches else tasks_of(options)
    client = connect()
    hardware = hardware_of_the_engine(os.environ.get("CUDA_VISIBLE_DEVICES"))
    identities = Identities(hardware, vllm_version or engine_version(), cache_directory(), console.bar)
    digest = plan.digest if isinstance(plan, Search) else sweep_digest(task.config for task in plan)
    experiment = experiment_now(client)
    unfinished = clean_up(client, experiment, digest) if experiment and not options.dry_run else None
    earlier = children.finished_children(client, experiment) if experiment else []
    ledger = Ledger(identities, earlier, resume=options.resume, repeats=options.repeats_in_a_run)
    if options.dry_run:
        forecast(options, plan, ledger)
        return
    attached = "MLFLOW_RUN_ID" in os.environ or not options.resume
    if unfinished and not attached:
        console.say(f"continuing sweep {unfinished}")
        children.reopen(client, unfinished)
    tags = {names.KIND: "sweep", names.SCHEMA_TAG: names.SCHEMA, children.SWEEP_DIGEST: digest}
    with tracked_run(client, f"sweep-{digest[:8]}", tags, None if attached else unfinished) as run:
        params = {name: text_of(getattr(options, name)) for name in options.__dataclass_fields__}
        children.log_params(client, run.run_id, params)
        work = Work(run, options, command, ledger)
        console.say(run.where())
        if isinstance(plan, Search):
            work.search(plan)
        else:
            work.measure_all(plan)


def tasks_of(options: SweepOptions) -> tuple[Task, ...]:
    return schedule(configurations_of(options), options.repeats, options.order, options.one.seed)


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


def forecast(options: SweepOptions, plan: tuple[Task, ...] | Search, ledger: Ledger) -> None:
    """What would run, what is done, and how long the rest takes going by earlier runs."""
    if isinstance(plan, Search):
        for option, name in LISTS.items():
            if name in plan.space:
                click.echo(f"{option}: {getattr(options, option)}")
        first = ledger.line(Task(plan.config(plan.first), 1, "first"))
        click.echo(f"settings: at most {plan.most_settings}, the first {'is done' if first.run_id else 'is to do'}")
        remaining = None if first.estimate_seconds is None else first.estimate_seconds * plan.most_settings
    else:
        progress = Progress([ledger.line(task) for task in plan])
        click.echo(progress.markdown())
        remaining = progress.remaining_seconds
    click.echo(f"time: {clock(remaining) if remaining is not None else 'unknown, nothing like it was measured here'}")


if __name__ == "__main__":
    main()
