"""Measure how long an engine takes to start, on a fresh machine and later, with or without a CUDA toolkit.

    python -m benchmarks.startup --driver-only        needs root: it renames nvcc, ninja and /usr/local/cuda*

The first start has empty caches of its own (vLLM, Triton, TorchInductor, FlashInfer), which later starts use.
The figures go to one JSON file, and the engines' logs beside it.  Run it again for every new pin of vLLM.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from benchmarks.bench import RESULTS, slug, write
from benchmarks.corpus import build_corpus
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.engines.start import hardware_of

TOOLKIT = Path("/usr/local")
COMPILERS = ("nvcc", "ninja")
CACHES = ("VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE")
LOG_TIME = re.compile(r" (\d\d-\d\d \d\d:\d\d:\d\d) \[")
METRICS = ("engine_load_seconds", "warmup_seconds", "wall_seconds", "reqs_per_sec", "gpu_memory_peak_mib")


@click.command(help=__doc__)
@click.option("--driver-only", is_flag=True, help="Hide nvcc, ninja and /usr/local/cuda* while the engines start.")
@click.option("--starts", default=3, show_default=True, help="One with empty caches, and the later ones.")
@click.option("--model", default="large-v3-turbo", show_default=True)
@click.option("--limit", default=600, show_default=True, help="Utterances with the lengths of test-clean.")
@click.option("--corpus", default=Path(tempfile.gettempdir()) / "whisperbench-corpus", type=click.Path(path_type=Path))
@click.option("--output", default=RESULTS, type=click.Path(path_type=Path), show_default=True)
@click.argument("options", nargs=-1)
def main(
    driver_only: bool, starts: int, model: str, limit: int, corpus: Path, output: Path, options: tuple[str, ...]
) -> None:
    """`options` are passed on to the benchmark, such as `-- --max_num_seqs 512`."""
    hardware = hardware_of(BenchmarkConfig())
    build_corpus(corpus)
    command = [sys.executable, "-m", "flows.benchmark", "--model", model, "--corpus", str(corpus)]
    command += ["--load_format", "dummy", "--offline", "true", "--limit", str(limit), *options]
    name = f"{slug(hardware.gpu_name)}-startup-{model}{'-driver-only' if driver_only else ''}"
    rows = []
    with tempfile.TemporaryDirectory() as caches, without_toolkit(driver_only) as environment:
        environment |= {variable: str(Path(caches, variable)) for variable in CACHES}
        for number in range(starts):
            rows.append(start(command, environment, output / f"{name}-{number}.log"))
            click.echo(json.dumps(rows[-1]))
    write(output / f"{name}.json", hardware, {"command": command[1:], "starts": rows})


@contextlib.contextmanager
def without_toolkit(hide: bool) -> Iterator[dict[str, str]]:
    """The environment of a host that has a driver only: nvcc, ninja and /usr/local/cuda* are renamed until the block
    ends."""
    environment, moved = dict(os.environ), []
    if hide:
        found = [Path(directory, name) for directory in os.get_exec_path() for name in COMPILERS]
        moved = [(path, path.with_name(f"hidden-{path.name}")) for path in [*found, *TOOLKIT.glob("cuda*")]]
        for variable in ("CUDA_HOME", "CUDA_PATH"):
            environment.pop(variable, None)
    try:
        for path, hidden in moved:
            if path.exists():
                path.rename(hidden)
        if hide and (left := [name for name in COMPILERS if shutil.which(name)]):
            raise click.ClickException(f"{left} are still on PATH.")
        yield environment
    finally:
        for path, hidden in reversed(moved):
            if hidden.exists():
                hidden.rename(path)


def start(command: list[str], environment: Mapping[str, str], log: Path) -> dict[str, Any]:
    """Times of one benchmark run in seconds, and what its engine's log has of compilers and killed processes."""
    with tempfile.TemporaryDirectory() as results:
        began = time.time()
        done = subprocess.run([*command, "--results_dir", results], env=environment, check=False)
        ended = time.time()
        bundle = next(Path(results).glob("*/bundle.json"), None)
        if bundle is None:
            raise click.ClickException(f"the benchmark ended with status {done.returncode} and left no result")
        log.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(next(bundle.parent.rglob("engine*.log")), log)
        last_transcript = (bundle.parent / "transcripts.jsonl").stat().st_mtime
        metrics = json.loads(bundle.read_text(encoding="utf-8"))["contents"]["metrics"]
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    timed_from = last_transcript - metrics["wall_seconds"]
    compiled = [line for line in lines if "during inference" in line and "will use mode" not in line]
    return {
        "status": done.returncode,
        "run_seconds": round(ended - began, 1),
        "seconds_after_last_transcript": round(ended - last_transcript, 2),
        **{key: round(metrics[key], 2) for key in METRICS if key in metrics},
        "compiled_after_start_up": [line[-200:] for line in compiled],
        "compiled_in_timed_region": sum(written(line, began) > timed_from for line in compiled),
        "killed": sum("force killing" in line for line in lines),
    }


def written(line: str, began: float) -> float:
    """When a line of vLLM's log was written, to the second; 0 where the line has no time."""
    found = LOG_TIME.search(line)
    if not found:
        return 0.0
    year = datetime.datetime.fromtimestamp(began).astimezone().year
    return datetime.datetime.strptime(f"{year}-{found[1]}", "%Y-%m-%d %H:%M:%S").astimezone().timestamp()


if __name__ == "__main__":
    main()
