"""What is missing before an hour of GPU time is spent: checks as data, each made where its subject is known."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from whisperbench.check import Check, ok, problem, warning
from whisperbench.engines.checks import check_gpu, check_gpu_memory, check_several_gpus, check_vllm
from whisperbench.engines.hardware import Hardware
from whisperbench.errors import WhisperbenchError
from whisperbench.inputs.checks import check_corpus, check_model
from whisperbench.options.doctor import DoctorConfig
from whisperbench.options.rules import cluster_of
from whisperbench.results.bundle import unlogged_bundles
from whisperbench.results.journal import CLOCK, abandoned
from whisperbench.results.names import KIND
from whisperbench.text import without_password
from whisperbench.tracking import write as tracking
from whisperbench.tracking.connection import connect, explained, password_in, server_version
from whisperbench.tracking.stale import close_stale_runs

GIB = 1 << 30
ENOUGH_DISK_GIB, LITTLE_DISK_GIB = 10, 1


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
    for name in CHECKS:
        yield from run_check(name, setup)


def run_check(name: str, setup: Setup) -> Sequence[Check]:
    """The findings of one check under its name; one that breaks is a problem, not the end."""
    try:
        return [dataclasses.replace(found, name=name) for found in CHECKS[name](setup)]
    except WhisperbenchError as error:
        return [Check(name, "problem", str(error), "The message says what to change.")]
    except Exception as error:
        reason = f"{type(error).__name__}: {without_password(str(error))[:300]}"
        return [Check(name, "problem", reason, "Not expected: please report it.")]


def check_disk(setup: Setup) -> Sequence[Check]:
    found = []
    for what, path in (("results_dir", Path(setup.config.results_dir).absolute()), ("cache", setup.cache)):
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        free = shutil.disk_usage(existing).free / GIB
        text = f"{free:,.1f} GiB free for {what} {path}"
        if free < LITTLE_DISK_GIB:
            found.append(problem(text, f"Make room, or choose another {what}."))
        elif free < ENOUGH_DISK_GIB:
            found.append(warning(text, "A large model is 3 GiB, test-clean 0.4 GiB."))
        else:
            found.append(ok(text))
    return found


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
    works = ok(f"{address}{f' (MLflow {version})' if version else ''} answers and takes runs and artifacts")
    said, _, remedy = (password_in(str(client.tracking_uri)) or "").partition(": ")
    return [works, *([warning(said, remedy)] if said else [])]


def check_stale_runs(_setup: Setup) -> Sequence[Check]:
    closed = close_stale_runs(connect())
    return [
        ok(f"closed as KILLED, their processes are dead: {', '.join(run.name for run in closed)}" if closed else "none")
    ]


def check_results(setup: Setup) -> Sequence[Check]:
    results = Path(setup.config.results_dir)
    found = []
    if unlogged := unlogged_bundles(results):
        remedy = f"mlflow run . -e upload -P bundles={results}"
        found.append(warning(f"{len(unlogged)} result(s) in {results} were not logged from here", remedy))
    for partial in abandoned(results):
        text = f"a measurement was cut off after {len(partial.transcripts)} transcripts: {partial.directory}"
        ended = (partial.directory / CLOCK).exists()
        complete = f"Complete and log it: mlflow run . -e upload -P bundles={partial.directory}"
        found.append(warning(text, complete if ended else "Keep its transcripts.jsonl or remove the directory."))
    return found or [ok(f"nothing unfinished in {results}")]


def check_environment_manager(_setup: Setup) -> Sequence[Check]:
    found = [name for name in ("conda", "mamba", "uv") if shutil.which(name)]
    if not found:
        return [
            warning("neither conda nor uv", "pip install uv, or use an installed environment: --env-manager local.")
        ]
    return [ok(f"{', '.join(found)}{'' if 'conda' in found else ': add --env-manager uv to mlflow run'}")]


CHECKS: Mapping[str, Callable[[Setup], Sequence[Check]]] = {
    "gpu": lambda setup: check_gpu(setup.hardware),
    "gpu memory": lambda setup: check_gpu_memory(setup.hardware),
    "vllm": lambda setup: check_vllm(setup.hardware),
    "several gpus": lambda setup: check_several_gpus(setup.gpus, cluster_of(setup.config.ray_address)),
    "disk": check_disk,
    "model": lambda setup: check_model(setup.config.model, setup.config.model_revision, setup.cache),
    "corpus": lambda setup: check_corpus(setup.config.corpus, setup.config.split),
    "tracking server": check_tracking_server,
    "stale runs": check_stale_runs,
    "results": check_results,
    "environment manager": check_environment_manager,
}
