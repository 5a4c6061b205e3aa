"""One sweep from its options to its leaderboard: plan, skip finished runs, measure the others, rank all."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from whisperbench.config.sweep import SweepConfig
from whisperbench.engines.hardware import Hardware, matching_gpu_types, select_gpus
from whisperbench.engines.start import all_hardware
from whisperbench.errors import ConfigError
from whisperbench.files import require_writable
from whisperbench.processes.watch import RUN_ID
from whisperbench.progress import Listener
from whisperbench.results.names import KIND, SCHEMA, SCHEMA_TAG
from whisperbench.sweep.grid import configurations_of, schedule, sweep_digest
from whisperbench.sweep.parallel import DeviceSlot, cluster_slots, device_slots, on_every_type
from whisperbench.sweep.plan import Planner
from whisperbench.sweep.progress import PlannedRun, Progress
from whisperbench.sweep.search import Search, described, settings_of
from whisperbench.sweep.sweep_run import Echo, SweepRun
from whisperbench.text import clock
from whisperbench.tracking import read
from whisperbench.tracking.client import connect
from whisperbench.tracking.experiment_page import update_experiment_page
from whisperbench.tracking.runs import log_now
from whisperbench.tracking.tracked_run import (
    SWEEP_DIGEST,
    close_stale_runs,
    current_experiment,
    interrupted_sweep,
    tracked_run,
)


def sweep(options: SweepConfig, listener: Listener, echo: Echo, command: Sequence[str]) -> None:
    """Measure the configurations of `options`, or search for the best one.

    Args:
        echo: is called with the leaderboard, even if a configuration failed, or with the plan of a dry run.
        command: command line of the benchmark; the options of a configuration are appended.

    Raises:
        ConfigError: no configuration can be measured on this hardware.
        SweepError: a configuration of a grid failed, or a search found no setting.
    """
    wanted = Search(options) if options.objective else None
    configs = () if wanted else configurations_of(options, listener.info)
    client, hardware = connect(), all_hardware(options.shared.ray_address)
    if wanted:
        digest, first = wanted.digest, settings_of(wanted.first)
        runs, slots = [PlannedRun(wanted.config(first), described(first))], [DeviceSlot()]
    else:
        runs = schedule(configs, options.repeats, options.order, options.shared.seed)
        runs, slots = assign(runs, options, hardware, str(client.tracking_uri))
        digest = sweep_digest(run.config for run in runs)
    progress = Progress(runs, wanted.max_settings if wanted else 0, len(slots))
    if slots[0].hardware:
        hardware = dataclasses.replace(hardware, cpu_cores=slots[0].hardware.cpu_cores)
    experiment = current_experiment(client)
    finished = read.finished_runs(client, experiment)
    planner = Planner(options, hardware, finished, listener)
    if options.dry_run:
        planner.plan_all(runs)
        time = progress.remaining_seconds
        left = "unknown, because no comparable run exists" if time is None else clock(time)
        space = [f"searched: {', '.join(f'{name}={options.given[name]}' for name in wanted.space)}"] if wanted else []
        echo("\n".join([progress.markdown(), *progress.causes, *space, f"time: {left}"]))
        return

    def check() -> None:
        require_writable(Path(options.shared.results_dir), "results_dir")
        planner.plan_all(runs)

    for closed in close_stale_runs(client):
        listener.info(f"closed run {closed}")
    unfinished = None
    if RUN_ID not in os.environ:
        check()  # a sweep that cannot be measured leaves no run behind
        unfinished = interrupted_sweep(client, experiment, digest) if options.resume else None
    if unfinished:
        listener.info(f"continuing sweep {unfinished}")
    tags = {KIND: "sweep", SCHEMA_TAG: SCHEMA, SWEEP_DIGEST: digest}
    with tracked_run(client, f"sweep-{digest[:8]}", tags, unfinished) as run:
        if RUN_ID in os.environ:
            check()  # in the run of `mlflow run`, so that it records the error
        log_now(client, run.run_id, params=options.as_params())
        update_experiment_page(client, run.experiment_id)
        listener.info(run.where())
        sweep_run = SweepRun(run, options, progress, command, listener, echo)
        if wanted:
            sweep_run.search(wanted, planner)
        else:
            sweep_run.measure_all(slots)


def assign(
    runs: list[PlannedRun], options: SweepConfig, hardware: Hardware, tracking_uri: str
) -> tuple[list[PlannedRun], list[DeviceSlot]]:
    """The runs and the slots that measure them.  On a cluster or several GPUs, each run is repeated per GPU type.

    Raises:
        ConfigError: the requested GPUs were not found.
    """
    address, count = options.shared.ray_address, options.parallel_runs
    if not address and count == 1:
        return runs, [DeviceSlot()]
    select_gpus(hardware, options.shared)  # refuses a type that matches no GPU
    types = matching_gpu_types(hardware, options.shared)
    runs = on_every_type(runs, types)
    if count == 1:
        return runs, [DeviceSlot()]
    found = sum(device.name in types for device in hardware.devices)
    if (address or hardware.has_gpu) and found < (count or 1):
        wanted = f"parallel_runs={count or 'all'} needs {count or 1} GPU(s)"
        raise ConfigError(f"{wanted}, and {found} were found. Use parallel_runs={found or 1}.")
    if not address:
        return runs, device_slots(hardware, count, types)
    for run in runs:  # each benchmark process runs on one node and must not connect to the cluster
        run.config = dataclasses.replace(run.config, ray_address=None)
    return runs, cluster_slots(address, count, types, tracking_uri)
