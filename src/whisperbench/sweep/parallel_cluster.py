"""Slots on the GPUs of a Ray cluster; each configuration runs as one Ray task on the node of its slot."""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from whisperbench.engines.hardware import Device
from whisperbench.engines.parallel.ray_cluster import Node, cluster_nodes, connect, on_node, require_alike
from whisperbench.errors import ConfigError
from whisperbench.measure.load import SWEEP
from whisperbench.processes.group import GRACE_SECONDS, TICK_SECONDS, CommandResult, run_to_end
from whisperbench.sweep.parallel import DeviceSlot


def cluster_slots(address: str, count: int | None, types: Sequence[str], tracking_uri: str) -> list[DeviceSlot]:
    """`count` slots (None: all), one per GPU of these types in the cluster.

    Raises:
        EngineError: the cluster does not answer, or the versions on a node differ from those on this host.
        ConfigError: the cluster has too few GPUs of these types, or a node cannot open the tracking store.
    """
    gpus = [(node, gpu) for node in cluster_nodes(address) for gpu in node.hardware.devices if gpu.name in types]
    if len(gpus) < max(count or 1, 1):
        raise ConfigError(
            f"parallel_runs={count or 'all'} needs more GPUs: the cluster has {len(gpus)}. Use parallel_runs=all."
        )
    gpus = gpus[:count]
    for node in {node.id: node for node, _ in gpus}.values():
        require_alike(node)
        if tracking_uri.startswith("sqlite:") and node.host != platform.node():
            raise ConfigError(f"{node.host} cannot open {tracking_uri}, a file of this host. Use a tracking server.")
    on_host = Counter(node.host for node, _ in gpus)

    def slot(node: Node, gpu: Device) -> DeviceSlot:
        def is_alive() -> bool:
            return any(each["Alive"] and each["NodeID"] == node.id for each in connect(address).nodes())

        run = functools.partial(run_on_node, address, node)
        hardware = dataclasses.replace(node.hardware, devices=(gpu,))
        return DeviceSlot(f"node {node.id[:6]}", hardware, (), on_host[node.host] - 1, run, is_alive)

    return [slot(node, gpu) for node, gpu in gpus]


def run_on_node(
    address: str, node: Node, command: Sequence[str], *, env: Mapping[str, str], log: Path,
    time_limit_seconds: float, tick: Callable[[float], None],
) -> CommandResult:  # fmt: skip
    """`run_to_end` as a Ray task with one GPU of a node; if the node is lost, the command has failed."""
    ray, begun = connect(address), time.perf_counter()
    passed = {name: value for name, value in env.items() if name.startswith(("MLFLOW_", "OMP_", SWEEP))}
    options = {"num_cpus": 1, "num_gpus": 1, "max_retries": 0, "scheduling_strategy": on_node(node.id)}
    task = ray.remote(**options)(run_command).remote(command, passed, str(Path.cwd()), time_limit_seconds)
    try:
        while not ray.wait([task], timeout=TICK_SECONDS)[0]:
            tick(time.perf_counter() - begun)
    except BaseException:
        ray.cancel(task)
        ray.wait([task], timeout=2 * GRACE_SECONDS + TICK_SECONDS)
        raise
    try:
        status, seconds, timed_out, output = ray.get(task)
    except ray.exceptions.RayError as error:
        status, seconds, timed_out = 1, time.perf_counter() - begun, False
        output = f"error: The task on node {node.id[:6]} ({node.host}) failed: {str(error).splitlines()[0]}\n".encode()
    log.write_bytes(output)
    return CommandResult(status, seconds, timed_out, log)


def run_command(
    command: Sequence[str], variables: Mapping[str, str], directory: str, time_limit_seconds: float
) -> tuple[int, float, bool, bytes]:
    """Run a command on this node in `directory`.

    Returns the exit status, the seconds, whether the time limit was exceeded, and the output.
    """
    os.chdir(directory)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "OMP_"))}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "benchmark.log")
        ended = run_to_end(
            command, env={**own, **variables}, log=log, time_limit_seconds=time_limit_seconds, tick=lambda _: None
        )
        return ended.exit_status, ended.seconds, ended.timed_out, log.read_bytes()
