"""Measure this machine: `make bench`.

On a GPU it runs a sweep of `grid=bench` over a corpus with the lengths of LibriSpeech test-clean and measures the CPU
time of the input pipeline.  Without a GPU it measures the input pipeline alone.  The figures are written to one JSON
file.

    python -m benchmarks.bench --repeats 5
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from benchmarks.corpus import build_corpus
from benchmarks.input_pipeline import features_alone, with_vllm
from tests.support.options import sweep_of
from whisperbench.cli import sweep
from whisperbench.cli.options import Command
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.config.sweep import SweepConfig
from whisperbench.corpus.corpus import load_corpus
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.start import hardware_of
from whisperbench.errors import SweepError
from whisperbench.results.names import COMMIT, CONFIG_DIGEST
from whisperbench.results.record import RunRecord
from whisperbench.sweep.grid import configurations_of
from whisperbench.tracking.client import connect
from whisperbench.tracking.read import finished_runs
from whisperbench.tracking.tracked_run import current_experiment

RESULTS = Path(__file__).parent / "results"
FACTS = (
    "gpu_name", "gpu_count", "gpu_power_limit_watts", "cpu_cores", "cuda_driver", "engine_version", "torch_version",
    "model", "engine", "padding_stride", "engines_per_gpu", "mel_device", "kv_cache_dtype", "max_num_seqs",
    "max_num_batched_tokens", "dtype", "quantization", "enforce_eager", "load_format", "cuda_mps",
)  # fmt: skip
"""Params of a run that describe the configuration and the hardware."""


@click.command(cls=Command, help=__doc__)
@click.option("--grid", default="bench", show_default=True, help="The sweep's grid.")
@click.option("--repeats", default=3, show_default=True, help="Runs of each configuration, a b a b.")
@click.option("--limit", type=int, help="Utterances; default: all 2,620 (without a GPU: 300).")
@click.option("--resume", default=False, show_default=True, help="Leave out what an earlier sweep has finished.")
@click.option("--output", default=RESULTS, type=click.Path(path_type=Path), show_default=True)
@click.option("--corpus", default=Path(tempfile.gettempdir()) / "whisperbench-corpus", type=click.Path(path_type=Path))
def main(grid: str, repeats: int, limit: int | None, resume: bool, output: Path, corpus: Path) -> None:
    hardware = hardware_of(BenchmarkConfig())
    if not hardware.has_gpu:
        count = limit or 300
        utterances = load_corpus(str(build_corpus(corpus / f"first-{count}", count)), "test-clean", None).utterances
        found = {**features_alone(count), **with_vllm(hardware, utterances)}
        write(output / f"input-pipeline-{slug(hardware.gpu_name)}.json", hardware, found)
        click.echo(json.dumps(found, indent=1))
        return
    utterances = load_corpus(str(build_corpus(corpus)), "test-clean", limit).utterances
    options = sweep_of(grid=grid, repeats=repeats, limit=limit or "all", resume=str(resume).lower(), corpus=str(corpus))
    failed = None
    try:
        sweep.run(options)
    except SweepError as error:
        failed = error
    found = {"rows": rows(options, hardware), "input_pipeline": with_vllm(hardware, utterances)}
    write(output / f"{slug(hardware.gpu_name)}-{Path(grid).stem}.json", hardware, found)
    if failed:
        raise failed


def rows(options: SweepConfig, hardware: Hardware) -> list[dict[str, Any]]:
    """One row per configuration of the grid, of its newest runs on this GPU; there may be none of one that fails."""
    client = connect()
    runs = defaultdict(list)
    for run in finished_runs(client, current_experiment(client)):
        if run.params.get("gpu_name") == hardware.gpu_name:
            runs[run.tags.get(CONFIG_DIGEST)].append(run)
    digests = [config.digest for config in configurations_of(options)]
    return [row(runs[digest][-options.repeats :]) for digest in digests if runs[digest]]


def row(repeats: Iterable[RunRecord]) -> dict[str, Any]:
    """Facts and metrics of the median run, by its rate (of two in the middle the slower), and every run's rate."""
    runs = sorted(repeats, key=lambda run: run.metrics["reqs_per_sec"])
    median = runs[(len(runs) - 1) // 2]
    return {
        **{name: median.params[name] for name in FACTS if name in median.params},
        "commit": median.tags.get(COMMIT),
        "repeats": [round(run.metrics["reqs_per_sec"], 2) for run in runs],
        **median.metrics,
    }


def write(path: Path, hardware: Hardware, found: dict[str, Any]) -> None:
    """The figures, and what they were measured on."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    measured_on = {
        "gpu": hardware.gpu_name if hardware.has_gpu else None,
        "driver": hardware.cuda_driver,
        "cpu": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "commit": commit or None,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"measured_on": measured_on, **found}, indent=1) + "\n", encoding="utf-8")


def slug(text: str) -> str:
    """A name of hardware as part of a file's name."""
    return "".join(c if c.isalnum() else "-" for c in text).strip("-").replace("--", "-")


if __name__ == "__main__":
    main()
