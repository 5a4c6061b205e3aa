"""A synthetic store of 64 runs: 2 models × 4 GPUs × 4 settings, each measured twice."""

from __future__ import annotations

import itertools

import numpy as np

from tests.support.stores import H100, run_of, spoken
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.results.record import RunRecord

GPUS = {"NVIDIA H200": 1.1, H100: 1.0, "NVIDIA L40S": 0.6, "NVIDIA A10": 0.2}
"""Speed of each GPU, relative to the H100."""
PRICES = "H200=3.00,H100=2.10,L40S=0.90,A10=0.60"
MODELS = {"large-v3": (100.0, 1.6), "large-v3-turbo": (180.0, 2.4)}
"""Requests per second on the H100 and errors per utterance of 72 words."""
SETTINGS: dict[str, tuple[dict[str, object], float, float]] = {
    "default": ({}, 1.0, 0.0),
    "fp8": ({"kv_cache_dtype": "fp8", "max_num_seqs": 256}, 1.1, 0.0),
    "stride16": ({"kv_cache_dtype": "fp8", "max_num_seqs": 256, "padding_stride": 16}, 1.6, 0.0),
    "stride64": ({"kv_cache_dtype": "fp8", "max_num_seqs": 256, "padding_stride": 64}, 1.8, 0.56),
}
"""Options, speed relative to the defaults, and errors per utterance that a setting adds."""
UTTERANCES, PER_SPEAKER, WORDS = 640, 16, 72


def many_runs() -> list[tuple[RunRecord, str]]:
    """The runs with their transcripts; settings of a model make mostly the same errors, noise is 1 %."""
    generator, found = np.random.default_rng(64), []
    common = {model: generator.poisson(errors, UTTERANCES) for model, (_, errors) in MODELS.items()}
    for (model, (rate, _)), (gpu, faster), (options, gain, added), day in itertools.product(
        MODELS.items(), GPUS.items(), SETTINGS.values(), range(2)
    ):
        errors = common[model] + generator.poisson(0.016 + added, UTTERANCES)
        measured = rate * faster * gain * float(np.exp(0.01 * generator.standard_normal()))
        run = run_of(
            BenchmarkConfig(model=model, **options),  # type: ignore[arg-type]
            gpu=gpu,
            wer=100 * float(errors.sum()) / (UTTERANCES * WORDS),
            rate=measured,
            day=day,
            metrics={
                "utterances": float(UTTERANCES),
                "reference_words": float(UTTERANCES * WORDS),
                "repetition_loops": 0.0,
                "energy_wh_per_audio_hour": 300 * faster / (measured * 7.4),
            },
        )
        found.append((run, spoken([int(each) for each in errors], words=WORDS, per_speaker=PER_SPEAKER)))
    return found
