"""CPU time of the input pipeline, compared with the stock feature extractor and vLLM's own input path."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.corpus import lengths, tiled_audio
from whisperbench.checkpoint.checkpoint import resolve_model
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.corpus.audio import SAMPLE_RATE, Samples, load_audio
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.settings import engine_settings
from whisperbench.engines.vllm.features import SAMPLES, log_mel_tensor
from whisperbench.engines.vllm.inputs import render_with_vllm
from whisperbench.engines.vllm.pipelined import VllmPipelined
from whisperbench.engines.windows import Window
from whisperbench.files import cache_directory

LOG = Path(tempfile.gettempdir()) / "whisperbench-engine.log"
RENDERED = 300
"""Maximum number of utterances whose engine input is made one by one."""


def features_alone(count: int) -> dict[str, Any]:
    """CPU time of the log-mel features of `count` utterances on one thread: stock extractor and `log_mel_tensor`."""
    import torch
    from transformers import WhisperFeatureExtractor

    torch.set_num_threads(1)
    clips = list(tiled_audio([min(samples, SAMPLES) for samples, _ in lengths(count)]))
    stock = WhisperFeatureExtractor(feature_size=128)
    ways = {
        "stock": lambda clip: stock(clip, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features[0].bfloat16(),
        "exact_short": lambda clip: log_mel_tensor(clip, 128, torch.bfloat16),
    }
    milliseconds = {}
    for name, way in ways.items():
        milliseconds[name] = cpu_milliseconds(way, clips)
    return {
        "utterances": len(clips),
        "mean_seconds": round(statistics.fmean(len(clip) / SAMPLE_RATE for clip in clips), 2),
        "cpu_ms_per_utterance": milliseconds,
        "utterances_per_sec_and_core": {name: round(1000 / ms, 1) for name, ms in milliseconds.items()},
        "cpu_share_of_stock": round(milliseconds["exact_short"] / milliseconds["stock"], 3),
    }


def with_vllm(hardware: Hardware, utterances: Sequence[Utterance]) -> dict[str, Any]:
    """CPU time from file to engine input; it needs a started engine, with random weights."""
    config = BenchmarkConfig(model="large-v3-turbo", load_format="dummy", max_num_seqs=2)
    checkpoint = resolve_model(config.model, "main", cache_dir=cache_directory(), random_weights=True)
    engine = VllmPipelined(engine_settings(config, checkpoint, hardware), hardware, LOG)
    with contextlib.closing(engine):
        return {"file_to_engine_input": file_to_engine_input(engine, utterances[:RENDERED])}


def file_to_engine_input(engine: VllmPipelined, utterances: Sequence[Utterance]) -> dict[str, float]:
    """CPU time from a file on disk to an engine input on one thread, by vLLM's own path and by this project's."""
    import torch

    def stock(utterance: Utterance) -> None:
        render_with_vllm(engine.llm, audio_of(utterance), engine.settings.prompt_token_ids)

    def pipelined(utterance: Utterance) -> None:
        engine.prepare(Window(utterance.utt_id, 0, audio_of(utterance)))

    def audio_of(utterance: Utterance) -> Samples:
        return load_audio(utterance.audio)[:SAMPLES]

    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        theirs, ours = (pool.submit(cpu_milliseconds, way, utterances).result() for way in (stock, pipelined))
    return {
        "stock_cpu_ms_per_utterance": theirs,
        "pipelined_cpu_ms_per_utterance": ours,
        "cpu_share_of_stock": round(ours / theirs, 3),
    }


def cpu_milliseconds(way: Callable[[Any], object], items: Sequence[Any]) -> float:
    """CPU time of this thread per item, after a warm-up with the first."""
    way(items[0])
    started = time.thread_time()
    for item in items:
        way(item)
    return round(1000 * (time.thread_time() - started) / len(items), 3)
