"""What one run holds: every param, metric and tag, by the names that people and scripts rely on.

Pure functions from a measurement to text and numbers.  A metric that was not measured is absent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from whisperbench import __version__
from whisperbench.engines.hardware import Hardware
from whisperbench.engines.seam import EngineFacts
from whisperbench.engines.settings import EngineSettings
from whisperbench.measure.clock import Measurement, Pass, Transcript
from whisperbench.measure.score import Score
from whisperbench.options import BenchmarkConfig

SCHEMA = "1"
"""Version of the record and of what the clock covers; part of the speed key."""

KIND = "whisperbench.kind"
SCHEMA_TAG = "whisperbench.schema"
ACCURACY_KEY = "whisperbench.accuracy_key"
SPEED_KEY = "whisperbench.speed_key"
SIGNATURE = "whisperbench.signature"
CONFIG_DIGEST = "whisperbench.config_digest"
RANDOM_WEIGHTS = "whisperbench.random_weights"
WARNINGS = "whisperbench.warnings"
FAILURE = "whisperbench.failure"
DATASET_DIGEST = "dataset.digest"
GIT_DIRTY = "git.dirty"

TRANSCRIPT_COLUMNS = (
    "utt_id", "speaker", "seconds", "reference", "hypothesis", "substitutions", "deletions", "insertions", "words",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Dataset:
    """The data of a run, as MLflow's `log_input` takes it; `digest` has at most 36 characters."""

    name: str
    split: str
    digest: str
    source: str


@dataclasses.dataclass(frozen=True, slots=True)
class RunContents:
    """Everything that one run holds, apart from its artifacts.

    `history`: metric name to its value in each repeat; `metrics` has the median repeat's.
    """

    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    history: Mapping[str, Sequence[float]]
    tags: Mapping[str, str]
    dataset: Dataset
    description: str
    started_ms: int
    ended_ms: int


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What was found out before the clock started."""

    model_id: str
    model_revision: str | None
    dataset: Dataset
    utterances_over_30s: int
    hardware: Hardware
    settings: EngineSettings
    engine: EngineFacts
    git_dirty: bool | None


def run_contents(
    config: BenchmarkConfig,
    facts: Facts,
    measurement: Measurement,
    score: Score | None,
    *,
    started_ms: int,
    ended_ms: int,
) -> RunContents:
    normalizer = score.normalizer if score else "none"
    speed = [speed_metrics(config, each) for each in measurement.passes]
    metrics = {
        **speed_metrics(config, measurement.median),
        **({} if score is None else accuracy_metrics(score)),
        "utterances_over_30s": float(facts.utterances_over_30s),
        "engine_load_seconds": facts.engine.load_seconds,
        "warmup_seconds": measurement.warmup_seconds,
    }
    params = run_params(config, facts, normalizer)
    tags = run_tags(config, facts, normalizer, measurement)
    line = closing_line(params, metrics)
    return RunContents(
        name=run_name(config),
        params=params,
        metrics=metrics,
        history={name: [s[name] for s in speed] for name in speed[0] if all(name in s for s in speed)},
        tags=tags,
        dataset=facts.dataset,
        description=summary(line, params, metrics, tags),
        started_ms=started_ms,
        ended_ms=ended_ms,
    )


def run_name(config: BenchmarkConfig) -> str:
    return f"{config.model.rstrip('/').rpartition('/')[2]}-{config.kv_cache_dtype}-{config.max_num_seqs}"


def run_params(config: BenchmarkConfig, facts: Facts, normalizer: str) -> dict[str, str]:
    hardware, engine = facts.hardware, facts.engine
    resolved = {
        "model_id": facts.model_id,
        "model_revision_resolved": facts.model_revision,
        "gpu_name": hardware.gpu_name,
        "gpu_count": str(hardware.gpu_count),
        "dtype_effective": engine.dtype_effective,
        "kv_cache_dtype_effective": engine.kv_cache_dtype_effective,
        "max_num_batched_tokens_effective": str(facts.settings.max_num_batched_tokens),
        "vllm_version": engine.vllm_version,
        "torch_version": engine.torch_version,
        "cuda_driver": hardware.cuda_driver,
        "normalizer": normalizer,
    }
    return {**config.as_params(), **{name: value for name, value in resolved.items() if value is not None}}


def accuracy_metrics(score: Score) -> dict[str, float]:
    """WER, CER and the counts that they are made of, in percent and words."""
    words = score.words
    found: dict[str, float | None] = {
        "wer": score.wer,
        "cer": score.cer,
        "wer_ci_low": score.interval.low if score.interval else None,
        "wer_ci_high": score.interval.high if score.interval else None,
        "substitutions": words.substitutions,
        "deletions": words.deletions,
        "insertions": words.insertions,
        "reference_words": words.words,
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def transcript_table(transcripts: Sequence[Transcript], score: Score | None) -> dict[str, object]:
    """transcripts.json: an MLflow table, one row per utterance; without a reference its counts are null."""
    counts = {each.utt_id: each.counts for each in score.utterances} if score else {}
    rows = []
    for each in transcripts:
        found = counts.get(each.utt_id)
        errors = (found.substitutions, found.deletions, found.insertions, found.words) if found else (None,) * 4
        rows.append([each.utt_id, each.speaker, round(each.seconds, 3), each.reference, each.hypothesis, *errors])
    return {"columns": list(TRANSCRIPT_COLUMNS), "data": rows}


def speed_metrics(config: BenchmarkConfig, timed: Pass) -> dict[str, float]:
    """Rates from totals, latencies, GPU readings and what they cost, of one timed pass."""
    gpu, audio_hours = timed.gpu, timed.audio_seconds / 3600
    gpu_hours = timed.wall_seconds / 3600
    found: dict[str, float | None] = {
        "reqs_per_sec": timed.reqs_per_sec,
        "rtfx": timed.rtfx,
        "output_tokens_per_sec": timed.output_tokens_per_sec,
        "wall_seconds": timed.wall_seconds,
        "client_cpu_seconds": timed.cpu_seconds,
        "audio_seconds": timed.audio_seconds,
        "utterances": timed.utterances,
        "latency_p50_ms": timed.latency_ms(50),
        "latency_p95_ms": timed.latency_ms(95),
        "usd_per_audio_hour": config.gpu_hourly_usd * gpu_hours / audio_hours if config.gpu_hourly_usd else None,
    }
    if gpu is not None:
        found |= {
            "gpu_util_mean": gpu.util_mean,
            "gpu_memory_peak_mib": gpu.memory_peak_mib,
            "gpu_power_mean_watts": gpu.power_mean_watts,
            "energy_wh_per_audio_hour": None if gpu.energy_wh is None else gpu.energy_wh / audio_hours,
        }
    return {name: float(value) for name, value in found.items() if value is not None}


def run_tags(config: BenchmarkConfig, facts: Facts, normalizer: str, measurement: Measurement) -> dict[str, str]:
    digest, hardware = facts.dataset.digest, facts.hardware
    data = {"dataset": digest, "limit": config.limit}
    warnings = sorted({text for each in measurement.passes if each.gpu for text in each.gpu.warnings})
    tags = {
        KIND: "benchmark",
        SCHEMA_TAG: SCHEMA,
        ACCURACY_KEY: key(**data, normalizer=normalizer, language=config.language, long_audio=config.long_audio),
        SPEED_KEY: speed_key(config, digest, hardware),
        SIGNATURE: signature(config, facts, normalizer),
        CONFIG_DIGEST: config.digest,
        DATASET_DIGEST: digest,
    }
    if facts.git_dirty is not None:
        tags[GIT_DIRTY] = str(facts.git_dirty).lower()
    if config.random_weights:
        tags[RANDOM_WEIGHTS] = "true"
    if warnings:
        tags[WARNINGS] = "; ".join(warnings)
    return tags


def speed_key(config: BenchmarkConfig, dataset_digest: str, hardware: Hardware) -> str:
    """What two runs share when their rates may be ranked against each other."""
    return key(
        dataset=dataset_digest,
        limit=config.limit,
        long_audio=config.long_audio,
        weights="random" if config.random_weights else "real",
        gpu=hardware.gpu_name,
        gpu_count=hardware.gpu_count,
        schema=SCHEMA,
    )


def key(**fields: object) -> str:
    """`dataset=ab12|limit=0|language=en`: readable, so that two keys can say where they differ."""
    return "|".join(f"{name}={str(value).replace('|', '/')}" for name, value in fields.items())


def signature(config: BenchmarkConfig, facts: Facts, normalizer: str) -> str:
    """One line that says everything that matters, as sacreBLEU's does."""
    return key(
        model=facts.model_id,
        rev=(facts.model_revision or "none")[:12],
        data=f"{facts.dataset.name}/{facts.dataset.split}#{facts.dataset.digest[:8]}",
        n=config.limit or "all",
        norm=normalizer,
        lang=config.language,
        long=config.long_audio,
        dtype=facts.engine.dtype_effective,
        kv=facts.engine.kv_cache_dtype_effective,
        seqs=config.max_num_seqs,
        front=config.front_end,
        gpu=facts.hardware.gpu_name,
        vllm=facts.engine.vllm_version,
        v=__version__,
    )


def closing_line(params: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """The last line on stdout, to be pasted in a README."""
    wer = f"{metrics['wer']:.2f}" if "wer" in metrics else "not measured"
    named = " | ".join(f"{name}: {params[name]}" for name in ("model", "kv_cache_dtype", "max_num_seqs"))
    return f"WER: {wer} | throughput: {metrics['reqs_per_sec']:.2f} reqs/sec | {named} | gpu: {params['gpu_name']}"


UNITS = {
    "wer": "%", "cer": "%", "reqs_per_sec": "utterances/s", "rtfx": "audio s per wall s", "wall_seconds": "s",
    "audio_seconds": "s", "utterances": "", "utterances_over_30s": "", "output_tokens_per_sec": "tokens/s",
    "latency_p50_ms": "ms", "latency_p95_ms": "ms", "gpu_util_mean": "%", "gpu_memory_peak_mib": "MiB",
    "gpu_power_mean_watts": "W", "energy_wh_per_audio_hour": "Wh per audio hour",
    "usd_per_audio_hour": "USD per audio hour", "engine_load_seconds": "s", "warmup_seconds": "s",
}  # fmt: skip


def summary(line: str, params: Mapping[str, str], metrics: Mapping[str, float], tags: Mapping[str, str]) -> str:
    """The run in markdown: the closing line, the metrics that were measured, and how to repeat it."""
    rows = []
    for name, unit in UNITS.items():
        if name in metrics:
            interval = ""
            if name == "wer" and "wer_ci_low" in metrics:
                interval = f" (95 % interval {metrics['wer_ci_low']:.2f} to {metrics['wer_ci_high']:.2f})"
            rows.append(f"| {name} | {metrics[name]:,.2f} {unit}{interval} |")
    notes = []
    if "wer" not in metrics:
        silent = "the references hold no words" if "reference_words" in metrics else "the corpus has no transcripts"
        notes.append(f"**No WER**: {'random weights' if tags.get(RANDOM_WEIGHTS) else silent}.")
    if WARNINGS in tags:
        notes.append(f"**Warning**: {tags[WARNINGS]}.")
    if params.get("long_audio") != "split" and metrics.get("utterances_over_30s"):
        notes.append(f"{metrics['utterances_over_30s']:.0f} utterance(s) over 30 s: long_audio={params['long_audio']}.")
    table = "\n".join(["| metric | value |", "|---|---|", *rows])
    return "\n\n".join([f"`{line}`", *notes, table, f"Signature: `{tags[SIGNATURE]}`"]) + "\n"
