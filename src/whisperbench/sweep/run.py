"""One sweep from its options to its leaderboard: plan, skip finished runs, measure the others, rank all."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from whisperbench.compare.document import Part
from whisperbench.config.sweep import SweepConfig
from whisperbench.engines.hardware import Hardware, engine_version, matching_gpu_types, select_gpus
from whisperbench.engines.start import all_hardware
from whisperbench.errors import ConfigError, SweepError
from whisperbench.files import require_writable
from whisperbench.processes.watch import RUN_ID
from whisperbench.progress import Listener
from whisperbench.results.names import KIND, SCHEMA, SCHEMA_TAG
from whisperbench.results.summary import command_line
from whisperbench.sweep.grid import Task, configurations_of, on_every_type, schedule, sweep_digest
from whisperbench.sweep.parallel import DeviceSlot, device_slots, run_in_parallel
from whisperbench.sweep.parallel_cluster import cluster_slots
from whisperbench.sweep.plan import EarlierRuns, RunIdentities
from whisperbench.sweep.progress import PlannedRun, Progress
from whisperbench.sweep.runner import measure
from whisperbench.sweep.search import Search, search
from whisperbench.sweep.sweep_run import ParentRun
from whisperbench.text import clock
from whisperbench.tracking import sweep_runs
from whisperbench.tracking.client import connect
from whisperbench.tracking.experiment_page import update_experiment_page
from whisperbench.tracking.runs import log_now
from whisperbench.tracking.stale import close_stale_runs
from whisperbench.tracking.tracked_run import tracked_run

Echo = Callable[[str | Sequence[Part]], None]
"""Prints a result: a string, or the parts of a leaderboard."""
Plan = tuple[Task, ...] | Search


def sweep(
    options: SweepConfig, listener: Listener, echo: Echo, command: Sequence[str], vllm_version: str | None = None
) -> None:
    """Measure the configurations of `options`, or search for the best one.

    Args:
        echo: is called with the leaderboard, even if a configuration failed, or with the plan of a dry run.
        command: command line of the benchmark; the options of a configuration are appended.
        vllm_version: version of vLLM that `command` uses (None: the installed version).

    Raises:
        SweepError: a configuration of a grid failed, or a search found no setting.
    """
    configs = () if options.searches else configurations_of(options, listener.info)
    plan: Plan = Search.of(options) if options.searches else ()
    client, slots = connect(), [DeviceSlot()]
    hardware = all_hardware(options.shared.ray_address)
    if not isinstance(plan, Search):
        plan = schedule(configs, options.repeats, options.order, options.shared.seed)
        plan, slots = assign(plan, options, hardware, str(client.tracking_uri))
    if slots[0].hardware:
        hardware = dataclasses.replace(hardware, cpu_cores=slots[0].hardware.cpu_cores)
    identities = RunIdentities(hardware, vllm_version or engine_version(), listener)
    digest = plan.digest if isinstance(plan, Search) else sweep_digest(task.config for task in plan)
    experiment = sweep_runs.current_experiment(client)
    finished = sweep_runs.finished_child_runs(client, experiment)
    earlier = EarlierRuns(identities, finished, resume=options.resume, repeats=options.repeats_in_a_run)
    if options.dry_run:
        echo(forecast(options, plan, earlier))
        return
    for closed in close_stale_runs(client):
        listener.info(f"closed run {closed}")

    def check() -> None:
        require_writable(Path(options.shared.results_dir), "results_dir")
        identities.require_one([plan.config(plan.first)] if isinstance(plan, Search) else [t.config for t in plan])

    if RUN_ID not in os.environ:
        check()  # a sweep that cannot be measured leaves no run behind
    unfinished = None
    if RUN_ID not in os.environ and options.resume:
        unfinished = sweep_runs.interrupted_sweep(client, experiment, digest)
    if unfinished:
        listener.info(f"continuing sweep {unfinished}")
        sweep_runs.reopen(client, unfinished)
    tags = {KIND: "sweep", SCHEMA_TAG: SCHEMA, sweep_runs.SWEEP_DIGEST: digest}
    with tracked_run(client, f"sweep-{digest[:8]}", tags, unfinished) as run:
        check()  # in the run of `mlflow run`, so that it records the error
        log_now(client, run.run_id, params=options.as_params())
        update_experiment_page(client, run.experiment_id)
        listener.info(run.where())
        parent = ParentRun(run, options, listener)
        if isinstance(plan, Search):
            identity = identities.of(plan.config(plan.first))
            study = f"{options.objective}-{sweep_digest([], sweep=digest, identity=identity)}"
            study = study if options.resume else f"{study}-{run.run_id}"
            search_for_the_best(plan, study, earlier, parent, command, echo)
        else:
            measure_all(plan, earlier, parent, command, slots, echo)


def assign(
    tasks: tuple[Task, ...], options: SweepConfig, hardware: Hardware, tracking_uri: str
) -> tuple[tuple[Task, ...], list[DeviceSlot]]:
    """The tasks and the slots that measure them.  On a cluster or several GPUs, each task is repeated per GPU type.

    Raises:
        ConfigError: the requested GPUs were not found.
    """
    address = options.shared.ray_address
    if not address and options.parallel_runs == 1:
        return tasks, [DeviceSlot()]
    select_gpus(hardware, options.shared)  # refuses a type that matches no GPU
    types = matching_gpu_types(hardware, options.shared)
    tasks = on_every_type(tasks, types)
    if address and options.parallel_runs != 1:
        slots = cluster_slots(address, options.parallel_runs, types, tracking_uri)
        # Each benchmark process runs on one node and must not connect to the cluster.
        local = (dataclasses.replace(each.config, ray_address=None) for each in tasks)
        return tuple(dataclasses.replace(t, config=config) for t, config in zip(tasks, local, strict=True)), slots
    return tasks, device_slots(hardware, options.parallel_runs, types)


def forecast(options: SweepConfig, plan: Plan, earlier: EarlierRuns) -> str:
    """The runs of a sweep with their states, and the duration of the remaining runs, estimated from earlier runs."""
    if isinstance(plan, Search):
        lines = [f"{name}: {options.text(name)}" for name in plan.space]
        first = earlier.plan(Task(plan.config(plan.first), 1, "first"))
        state = first.failure or f"{'was' if first.run_id else 'is not yet'} measured"
        lines.append(f"settings: at most {plan.max_settings}; the first one: {state}")
        remaining = None if first.estimate_seconds is None else first.estimate_seconds * plan.max_settings
    else:
        progress = Progress([earlier.plan(task) for task in plan])
        lines = [progress.markdown()]
        remaining = progress.remaining_seconds
    time = "unknown, because no comparable run exists" if remaining is None else clock(remaining)
    return "\n".join([*lines, f"time: {time}"])


def measure_all(
    tasks: Sequence[Task],
    earlier: EarlierRuns,
    parent: ParentRun,
    command: Sequence[str],
    slots: Sequence[DeviceSlot],
    echo: Echo,
) -> None:
    """Measure the tasks that no earlier sweep has finished, one at a time per slot, and rank all tasks.

    Raises:
        SweepError: a configuration failed or was refused.
    """
    progress = parent.progress
    progress.runs, progress.slots = [earlier.plan(task) for task in tasks], len(slots)
    todo = [pair for pair in zip(progress.runs, tasks, strict=True) if pair[0].state == "waiting"]

    def measure_one(index: int, slot: DeviceSlot, stop: threading.Event) -> None:
        run, task = todo[index]
        measure(task, run, parent, command, slot, stop)

    with parent.watched():
        for index in run_in_parallel([task.config for _, task in todo], slots, measure_one):
            todo[index][0].state, todo[index][0].failure = "failed", "the Ray node has left the cluster"
    parent.leaderboard(echo)
    failed = [run for run in progress.runs if run.state in ("failed", "refused")]
    if failed:
        causes = "; ".join(f"{run.name}: {(run.failure or '').rstrip('.')}" for run in failed)
        raise SweepError(f"{progress.sentence}. {causes}")
    parent.listener.info(progress.sentence)


def search_for_the_best(
    wanted: Search, study: str, earlier: EarlierRuns, parent: ParentRun, command: Sequence[str], echo: Echo
) -> None:
    """Measure the settings that the search proposes; print the leaderboard and the command line of the best setting.

    Raises:
        SweepError: no setting was measured, or none has a WER within the limit.
    """
    progress = parent.progress
    progress.planned = wanted.max_settings

    def plan(settings: Mapping[str, str]) -> tuple[Task, PlannedRun]:
        task = Task(wanted.config(settings), 1, described(settings))
        run = earlier.plan(task)
        progress.runs.append(run)
        parent.show()
        return task, run

    def evaluate(settings: Mapping[str, str]) -> Mapping[str, float] | None:
        try:
            task, run = plan(settings)
        except ConfigError as error:
            parent.listener.info(f"{described(settings)} is not allowed: {error}")
            return None
        if run.state == "waiting":
            measure(task, run, parent, command, DeviceSlot(), threading.Event())
        return run.metrics or None

    with parent.watched():
        best = search(wanted, evaluate, storage=parent.directory.parent / "search.db", name=study, recall=plan)
        progress.planned = len(progress.runs)  # the space may have fewer allowed settings
    parent.leaderboard(echo)
    parent.listener.info(progress.sentence)
    if best is None:
        bound = f" with a WER of at most {wanted.max_wer} %" if wanted.max_wer is not None else ""
        raise SweepError(f"No setting was measured{bound}: {progress.sentence}.")
    winner, value = command_line(wanted.config(best[0])), best[1]
    log_now(parent.client, parent.run_id, params={"best_command": winner})
    echo(f"{wanted.sorting.metric}: {value:.2f} | best of {progress.count('done', 'skipped')} settings\n{winner}")


def described(settings: Mapping[str, str]) -> str:
    """`max_num_seqs=64,kv_cache_dtype=fp8`."""
    return ",".join(f"{name}={value}" for name, value in settings.items())
