"""Runs measured in parallel: on GPUs or parts of the cores of this host, or on the GPUs of a Ray cluster."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import platform
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from pathlib import Path

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.engines.hardware import Hardware, split_cores
from whisperbench.engines.parallel.ray_cluster import Node, cluster_nodes, connect, on_node, require_alike
from whisperbench.errors import ConfigError
from whisperbench.measure.load import SWEEP
from whisperbench.processes.group import GRACE_SECONDS, TICK_SECONDS, CommandResult, run_to_end
from whisperbench.sweep.progress import PlannedRun


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceSlot:
    """A device that measures one configuration at a time; with `hardware` None it measures every configuration.

    Its processes use `hardware` and `cores` (empty: all); `neighbours` is the number of other slots on the same host.
    `run` runs a command on the device until it has ended.
    """

    name: str = ""
    hardware: Hardware | None = None
    cores: tuple[int, ...] = ()
    neighbours: int = 0
    run: Callable[..., CommandResult] = run_to_end

    def measures(self, config: BenchmarkConfig) -> bool:
        """Whether the configuration may run here: GPUs measure only configurations for their type."""
        return not (self.hardware and self.hardware.has_gpu) or config.gpu_type == self.hardware.gpu_name


def on_every_type(runs: Sequence[PlannedRun], types: Sequence[str]) -> list[PlannedRun]:
    """Each run once per GPU type.  If several types exist, the name of a run ends with its type."""
    found = []
    for run, gpu in itertools.product(runs, types):
        name = f"{run.name}-{gpu.replace(' ', '-')}" if len(types) > 1 else run.name
        found.append(dataclasses.replace(run, name=name, config=dataclasses.replace(run.config, gpu_type=gpu)))
    return found or list(runs)


def device_slots(hardware: Hardware, count: int | None, types: Sequence[str]) -> list[DeviceSlot]:
    """`count` slots (None: one per GPU) with equally many cores, each with a GPU of these types if GPUs exist."""
    devices = [device for device in hardware.devices if device.name in types]
    count = count or len(devices) or 1
    cores = sorted(os.sched_getaffinity(0))
    slots = []
    for i, part in enumerate(split_cores(cores[: len(cores) // count * count] or cores, count)):
        own = dataclasses.replace(
            hardware, devices=tuple(devices[i : i + 1]), cpu_cores=min(len(part), hardware.cpu_cores)
        )
        name = f"GPU {own.devices[0].index}" if own.has_gpu else f"cores {part[0]}-{part[-1]}"
        slots.append(DeviceSlot(name, own, part, count - 1))
    return slots


def cluster_slots(address: str, count: int | None, types: Sequence[str], tracking_uri: str) -> list[DeviceSlot]:
    """`count` slots (None: all), one per GPU of these types in the cluster.

    Raises:
        EngineError: the cluster does not answer, or the versions on a node differ from those on this host.
        ConfigError: a node cannot open the tracking store.
    """
    gpus = [(node, gpu) for node in cluster_nodes(address) for gpu in node.hardware.devices if gpu.name in types]
    gpus = gpus[:count]
    for node in {node.id: node for node, _ in gpus}.values():
        require_alike(node)
        if tracking_uri.startswith("sqlite:") and node.host != platform.node():
            raise ConfigError(f"{node.host} cannot open {tracking_uri}, a file of this host. Use a tracking server.")
    on_host = Counter(node.host for node, _ in gpus)
    return [
        DeviceSlot(
            name=f"node {node.id[:6]}",
            hardware=dataclasses.replace(node.hardware, devices=(gpu,)),
            neighbours=on_host[node.host] - 1,
            run=functools.partial(run_on_node, address, node),
        )
        for node, gpu in gpus
    ]


def run_in_parallel(
    runs: Sequence[PlannedRun],
    slots: Sequence[DeviceSlot],
    measure: Callable[[PlannedRun, DeviceSlot, threading.Event], None],
) -> None:
    """Call `measure` for each run, on the first free slot of its GPU type.

    It must raise `CancelledError` when the event is set.  An error of one slot, or a signal that raises in this thread,
    stops the other slots before it is raised.
    """
    waiting, lock, stop = list(runs), threading.Lock(), threading.Event()

    def next_run(slot: DeviceSlot) -> PlannedRun | None:
        with lock:
            run = next((run for run in waiting if slot.measures(run.config)), None)
            if run:
                waiting.remove(run)
            return run

    def work(slot: DeviceSlot) -> None:
        if slot.cores:
            os.sched_setaffinity(0, slot.cores)  # the processes that this thread starts inherit it
        try:
            while not stop.is_set() and (run := next_run(slot)):
                measure(run, slot, stop)
        except BaseException:
            stop.set()
            raise

    if list(slots) == [DeviceSlot()]:
        work(slots[0])  # in this thread, because it receives the signals
        return
    with ThreadPoolExecutor(len(slots), thread_name_prefix="slot") as pool:
        futures = [pool.submit(work, slot) for slot in slots]
        try:
            wait(futures)
        finally:
            stop.set()
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, CancelledError)):
        raise error


def run_on_node(
    address: str, node: Node, command: Sequence[str], *, env: Mapping[str, str], log: Path,
    time_limit_seconds: float, tick: Callable[[float], None],
) -> CommandResult:  # fmt: skip
    """`run_to_end` as a Ray task with one GPU of a node; if the node is lost, the command has failed."""
    ray, begun = connect(address), time.perf_counter()
    passed = {name: value for name, value in env.items() if name.startswith(("MLFLOW_", "OMP_", SWEEP))}
    options = {"num_cpus": 1, "num_gpus": 1, "max_retries": 0, "scheduling_strategy": on_node(node.id)}
    task = ray.remote(**options)(run_command).remote(command, passed, str(Path.cwd()), time_limit_seconds)
    ended: CommandResult
    try:
        while not ray.wait([task], timeout=TICK_SECONDS)[0]:
            tick(time.perf_counter() - begun)
    except BaseException:
        ray.cancel(task)
        ray.wait([task], timeout=2 * GRACE_SECONDS + TICK_SECONDS)
        raise
    try:
        ended, output = ray.get(task)
    except ray.exceptions.RayError as error:
        ended = CommandResult(1, time.perf_counter() - begun, timed_out=False, log=log)
        output = f"error: The task on node {node.id[:6]} ({node.host}) failed: {str(error).splitlines()[0]}\n".encode()
    log.write_bytes(output)
    return dataclasses.replace(ended, log=log)


def run_command(
    command: Sequence[str], variables: Mapping[str, str], directory: str, time_limit_seconds: float
) -> tuple[CommandResult, bytes]:
    """Run a command on this node in `directory`; returns its result and its output."""
    os.chdir(directory)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "OMP_"))}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "benchmark.log")
        ended = run_to_end(
            command, env={**own, **variables}, log=log, time_limit_seconds=time_limit_seconds, tick=lambda _: None
        )
        return ended, log.read_bytes()
