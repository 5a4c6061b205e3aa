"""Measure the front ends: `make bench`.

On a GPU machine, random weights, the lengths of LibriSpeech test-clean: `stock` (plain `LLM.generate`) and `pipelined`
in turn in one engine, files on disk to text, one JSON file per configuration and a table.  Without a GPU, the front
end alone: utterances per second and core, the stock feature extractor against the exact short one.

    python -m tests.benchmarks.bench --models large-v3-turbo,large-v3 --max_num_seqs 256 --kv_cache_dtypes auto,fp8
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from tests.benchmarks.corpus import build_corpus, lengths, tiled_audio
from whisperbench.engines.features import SAMPLES, log_mel_tensor
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.settings import EngineSettings, engine_settings
from whisperbench.engines.vllm import Request, VllmEngine, hardware_of_the_engine
from whisperbench.engines.vllm_inputs import render_with_vllm
from whisperbench.inputs.audio import load_audio
from whisperbench.inputs.checkpoint import Checkpoint, resolve_model
from whisperbench.inputs.corpus import Utterance, load_corpus
from whisperbench.measure import clock as measure
from whisperbench.options import BenchmarkConfig

RESULTS = Path(__file__).parent / "results"
LOG = Path(tempfile.gettempdir()) / "whisperbench-engine.log"
FLAT_MEMORY = (500, 5_000)  # utterances


@click.command(help=__doc__)
@click.option("--models", default="large-v3-turbo,large-v3", show_default=True)
@click.option("--kv_cache_dtypes", default="auto", show_default=True)
@click.option("--max_num_seqs", default="256", show_default=True)
@click.option("--limit", default=0, show_default=True, help="Utterances; 0 = all 2,620.")
@click.option("--stock_limit", default=0, show_default=True, help="Utterances for the stock front end, which is slow.")
@click.option("--output", default=RESULTS, type=click.Path(path_type=Path), show_default=True)
@click.option("--corpus", default=Path(tempfile.gettempdir()) / "whisperbench-corpus", type=click.Path(path_type=Path))
def main(
    models: str, kv_cache_dtypes: str, max_num_seqs: str, limit: int, stock_limit: int, output: Path, corpus: Path
) -> None:
    measure.keep_memory_flat()
    hardware = hardware_of_the_engine(os.environ.get("CUDA_VISIBLE_DEVICES"))
    output.mkdir(parents=True, exist_ok=True)
    if not hardware.has_gpu:
        count = limit or 300
        found = {**front_end_alone(count), "file_to_engine_input": without_gpu(hardware, corpus, count)}
        write(output / f"front_end-{slug(hardware.gpu_name)}.json", hardware, found)
        click.echo(json.dumps(found, indent=1))
        return
    utterances = load_corpus(str(build_corpus(corpus)), "test-clean", limit).utterances
    rows = []
    grid = itertools.product(models.split(","), kv_cache_dtypes.split(","), map(int, max_num_seqs.split(",")))
    for model, kv_cache_dtype, seqs in grid:
        config = BenchmarkConfig(model=model, kv_cache_dtype=kv_cache_dtype, max_num_seqs=seqs, load_format="dummy")
        found = one_engine(config, hardware, utterances, stock_limit or len(utterances), not rows)
        name = f"{model}-{kv_cache_dtype}-{seqs}"
        write(output / f"{slug(hardware.gpu_name)}-{name}.json", hardware, found)
        rows.append((name, found))
        click.echo(table(rows))


@contextlib.contextmanager
def started(config: BenchmarkConfig, hardware: Hardware) -> Iterator[tuple[VllmEngine, EngineSettings, Checkpoint]]:
    """An engine with random weights, closed again at the end of the block."""
    checkpoint = resolve_model(config.model, "main", cache_dir=Path(tempfile.gettempdir()), random_weights=True)
    settings = engine_settings(config, checkpoint, hardware)
    engine = VllmEngine(settings, hardware, LOG)
    try:
        yield engine, settings, checkpoint
    finally:
        engine.close()


def one_engine(
    config: BenchmarkConfig,
    hardware: Hardware,
    utterances: Sequence[Utterance],
    stock_limit: int,
    measure_memory: bool,
) -> dict[str, Any]:
    """Both front ends in turn with one engine; first, if wanted, the client's peak memory for few and for many."""
    with started(config, hardware) as (engine, settings, checkpoint):
        plan = measure.plan_for(config, settings, checkpoint.count_tokens)

        def run(front_end: str, chosen: Sequence[Utterance]) -> dict[str, Any]:
            with_front_end = dataclasses.replace(plan, front_end=front_end)
            timed = measure.measure(
                engine,
                chosen,
                with_front_end,
                repeats=1,
                hardware=hardware,
                on_result=lambda _repeat, _transcript: None,
            ).median
            return {
                "front_end": front_end,
                "utterances": timed.utterances,
                "wall_seconds": round(timed.wall_seconds, 3),
                "reqs_per_sec": round(timed.reqs_per_sec, 2),
                "rtfx": round(timed.rtfx, 1),
                "client_cpu_ms_per_utterance": round(1000 * timed.cpu_seconds / timed.utterances, 2),
                "output_tokens_per_utterance": round(timed.output_tokens / timed.utterances, 2),
                "gpu": dataclasses.asdict(timed.gpu) if timed.gpu else None,
            }

        front_end = front_end_cpu(engine, utterances[:200], settings.prompt_token_ids)
        memory = {}
        for count in FLAT_MEMORY if measure_memory else ():
            run("pipelined", list(itertools.islice(itertools.cycle(utterances), count)))
            memory[str(count)] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        passes = [
            run("pipelined", utterances),
            run("stock", utterances[:stock_limit]),
            run("pipelined", utterances),
            run("stock", utterances[:stock_limit]),
            run("pipelined", utterances),
        ]
        median = {
            front_end: statistics.median(p["reqs_per_sec"] for p in passes if p["front_end"] == front_end)
            for front_end in ("stock", "pipelined")
        }
        return {
            "config": config.as_params(),
            "engine": dataclasses.asdict(engine.facts),
            "max_num_batched_tokens": settings.max_num_batched_tokens,
            "workers": plan.workers,
            "reqs_per_sec": median,
            "ratio": round(median["pipelined"] / median["stock"], 2),
            "file_to_engine_input": front_end,
            "client_peak_mib_by_utterances": memory,
            "passes": passes,
        }


def without_gpu(hardware: Hardware, corpus: Path, count: int) -> dict[str, float]:
    """`front_end_cpu` with an engine that is started for its renderer only."""
    utterances = load_corpus(str(build_corpus(corpus / f"first-{count}", count)), "test-clean", 0).utterances
    config = BenchmarkConfig(model="large-v3-turbo", load_format="dummy", max_num_seqs=2)
    with started(config, hardware) as (engine, settings, _):
        return front_end_cpu(engine, utterances, settings.prompt_token_ids)


def front_end_cpu(
    engine: VllmEngine, utterances: Sequence[Utterance], prompt_token_ids: Sequence[int]
) -> dict[str, float]:
    """CPU time from a file on disk to an engine input, on one thread: as vLLM renders it, and as we do."""

    def stock(audio: npt.NDArray[np.float32]) -> None:
        render_with_vllm(engine._llm, audio, prompt_token_ids)

    def pipelined(audio: npt.NDArray[np.float32]) -> None:
        engine.prepare(Request("0:0", audio))

    def milliseconds(render: Callable[[npt.NDArray[np.float32]], None]) -> float:
        started = time.thread_time()
        for utterance in utterances:
            render(load_audio(utterance.audio)[:SAMPLES])
        return round(1000 * (time.thread_time() - started) / len(utterances), 3)

    with measure.reader_threads(1) as pool:  # one torch thread each
        found = {each.__name__: pool.submit(milliseconds, each).result() for each in (stock, pipelined)}
    milliseconds_each = {f"{name}_cpu_ms_per_utterance": value for name, value in found.items()}
    return {**milliseconds_each, "cpu_share_of_stock": round(found["pipelined"] / found["stock"], 3)}


def front_end_alone(count: int) -> dict[str, Any]:
    """CPU time of the features of `count` utterances on one thread, stock against exact-short."""
    import torch
    from transformers import WhisperFeatureExtractor

    torch.set_num_threads(1)
    clips = list(tiled_audio([min(samples, SAMPLES) for samples, _ in lengths(count)]))
    stock = WhisperFeatureExtractor(feature_size=128)
    ways = {
        "stock": lambda clip: stock(clip, sampling_rate=16_000, return_tensors="pt").input_features[0].bfloat16(),
        "exact_short": lambda clip: log_mel_tensor(clip, 128, torch.bfloat16),
    }
    milliseconds = {}
    for name, way in ways.items():
        way(clips[0])
        started = time.thread_time()
        for clip in clips:
            way(clip)
        milliseconds[name] = 1000 * (time.thread_time() - started) / len(clips)
    return {
        "utterances": len(clips),
        "mean_seconds": round(statistics.fmean(len(clip) / 16_000 for clip in clips), 2),
        "cpu_ms_per_utterance": {name: round(ms, 3) for name, ms in milliseconds.items()},
        "utterances_per_sec_and_core": {name: round(1000 / ms, 1) for name, ms in milliseconds.items()},
        "cpu_share_of_stock": round(milliseconds["exact_short"] / milliseconds["stock"], 3),
    }


def table(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    lines = ["| configuration | stock | pipelined | ratio | peak MiB at 500 and 5,000 |", "|---|---|---|---|---|"]
    for name, found in rows:
        rate, memory = found["reqs_per_sec"], found["client_peak_mib_by_utterances"]
        peaks = " / ".join(str(each) for each in memory.values()) or "not measured"
        lines.append(f"| {name} | {rate['stock']} | {rate['pipelined']} | {found['ratio']} | {peaks} |")
    return "\n".join(lines)


def write(path: Path, hardware: Hardware, found: dict[str, Any]) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    measured_on = {
        "gpu": hardware.gpu_name if hardware.has_gpu else None,
        "driver": hardware.cuda_driver,
        "cpu": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "commit": commit or None,
    }
    path.write_text(json.dumps({"measured_on": measured_on, **found}, indent=1) + "\n", encoding="utf-8")


def slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text).strip("-").replace("--", "-")


if __name__ == "__main__":
    main()
