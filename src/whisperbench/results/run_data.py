"""Params, metrics, tags and description of a run, computed from a measurement without side effects."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.corpus.corpus import WHOLE
from whisperbench.engines.base import EngineInfo
from whisperbench.engines.hardware import NOT_REPORTED
from whisperbench.measure.gpu import GpuReadings
from whisperbench.measure.normalizer import normalizer_of
from whisperbench.measure.score import Score, units_per_minute
from whisperbench.measure.timing import Measurement, Pass
from whisperbench.results import keys, names
from whisperbench.results.run_info import RunData, RunInfo
from whisperbench.results.run_name import data_label, run_name
from whisperbench.results.summary import announcement, summary

SLOW_ENGINE = 85.0
"""Audio of the slowest engine in percent of the median engine's audio; a lower value causes a warning."""
LONG_TAIL = 0.05
"""Share of the timed region in which an engine was idle at the end; a higher value causes a warning."""


def run_start(info: RunInfo) -> RunData:
    """The data of a run before its measurement."""
    name, description = run_name(info.config, info.hardware), announcement(info.config)
    return RunData(name, run_params(info), initial_tags(info), description, info.dataset)


def run_data(info: RunInfo, engine: EngineInfo, measurement: Measurement, score: Score | None) -> RunData:
    """The data of a run after its measurement, except the times.

    Without a score it has no accuracy metrics, and without a valid pass no speed metrics.
    """
    median, normalizer = measurement.median, score.normalizer.name if score else "none"
    gpus, alone = info.hardware.gpu_count, measurement.single_gpu_rates
    speed = [speed_metrics(info.config, each, gpus, alone) for each in measurement.valid]
    exact = {
        "utterances": median.utterances,
        "audio_seconds": median.audio_seconds,
        **(speed[measurement.valid.index(median)] if speed else {}),
        **(accuracy_metrics(score) if score else unscored_metrics(info.config, median)),
        "utterances_over_30s": info.utterances_over_30s,
        "silent_utterances": info.silent_utterances,
        "engine_load_seconds": engine.load_seconds,
        "warmup_seconds": measurement.warmup_seconds,
    }
    rates = [metric.name for metric in names.METRICS if metric.heading]
    found = dataclasses.replace(
        run_start(info),
        params=run_params(info, engine, normalizer, median.gpu),
        metrics={each.name: each.rounded(float(exact[each.name])) for each in names.METRICS if each.name in exact},
        history={n: [each[n] for each in speed] for n in rates if speed and all(n in each for each in speed)},
        tags=run_tags(info, engine, normalizer, measurement),
    )
    return dataclasses.replace(found, description=summary(info.config, found))


def option_params(config: BenchmarkConfig, resolved: Mapping[str, str | None]) -> dict[str, str]:
    """The options that are params of a run, according to their declarations (`Option.param`).

    Args:
        resolved: values of options with `param="resolved"`, listed in `run_params`; one that is absent or None is not a
            param.
    """
    sources = {"always": config.as_params(), "changed": config.changed(), "resolved": resolved, "never": {}}
    found = {name: sources[each.param].get(name) for name, each in config.declared().items() if each.has(config.engine)}
    return {name: text for name, text in found.items() if text is not None}


def run_params(
    info: RunInfo, engine: EngineInfo | None = None, normalizer: str | None = None, readings: GpuReadings | None = None
) -> dict[str, str]:
    """All params of a run; without an engine those that are known before it starts."""
    settings, hardware = info.settings, info.hardware
    resolved = {
        "dtype": engine.dtype_effective if engine else None,
        "split": None if info.dataset.split == WHOLE else info.dataset.split,
        "max_num_batched_tokens": str(settings.max_num_batched_tokens),
        "mel_device": settings.mel_device,
        "batch_size": str(settings.batch_size),
        "engines_per_gpu": str(settings.engines_per_gpu) if settings.engines_per_gpu > 1 else None,
    }
    facts = {
        "model_id": info.model_id,
        "model_revision_resolved": info.model_revision,
        "gpu_name": None if hardware.gpu_name == NOT_REPORTED else hardware.gpu_name,
        "gpu_count": str(hardware.gpu_count),
        "gpu_power_limit_watts": hardware.gpu_power_limit_watts,
        "cpu_cores": f"{hardware.cpu_cores:g}",
        "cuda_driver": hardware.cuda_driver,
        "normalizer": normalizer,
        "cuda_mps": "true" if readings and readings.cuda_mps else None,
    }
    if engine:
        facts |= {
            "engine_version": engine.engine_version,
            "engine_deviations": engine.engine_deviations,
            "torch_version": engine.torch_version,
            "engines": str(engine.engines) if engine.engines > 1 else None,
            "hosts": str(engine.hosts) if engine.hosts > 1 else None,
        }
    return option_params(info.config, resolved) | {name: value for name, value in facts.items() if value is not None}


def accuracy_metrics(score: Score) -> dict[str, float]:
    """Error rates in percent, and the counts of the ranked one, in words or in characters."""
    counts, unit, interval = score.counts, score.normalizer.unit, score.interval
    return _measured(
        {
            "wer": score.wer,
            "cer": score.cer,
            f"{score.metric}_ci_low": interval.low if interval else None,
            f"{score.metric}_ci_high": interval.high if interval else None,
            f"invented_{unit}s_per_minute": score.invented_per_minute,
            "substitutions": counts.substitutions,
            "deletions": counts.deletions,
            "insertions": counts.insertions,
            f"reference_{unit}s": counts.units,
        }
    )


def unscored_metrics(config: BenchmarkConfig, timed: Pass) -> dict[str, float]:
    """Transcribed words or characters per minute of a corpus without transcripts; none of random weights."""
    normalizer = normalizer_of(config.language)
    found = None if config.random_weights else units_per_minute(timed.results, normalizer)
    return _measured({f"{normalizer.unit}s_per_minute": found})


def speed_metrics(
    config: BenchmarkConfig, timed: Pass, gpus: int, single_gpu_rates: Sequence[float]
) -> dict[str, float]:
    """Rates, latencies, GPU readings and cost of one valid pass; rates are computed from totals.

    `single_gpu_rates`: utterances per second of each GPU measured alone, the reference of `scaling_efficiency`.
    """
    gpu, load, audio_hours = timed.gpu, timed.load, timed.audio_seconds / 3600
    gpu_hours = max(1, gpus) * timed.wall_seconds / 3600
    return _measured(
        {
            "reqs_per_sec": timed.reqs_per_sec,
            "rtfx": timed.rtfx,
            "output_tokens_per_sec": timed.output_tokens_per_sec,
            "wall_seconds": timed.wall_seconds,
            "client_cpu_seconds": timed.cpu_seconds,
            "other_cpu_percent": load.other_percent if load else None,
            "repetition_loops": None if config.random_weights else timed.repetition_loops,
            "retried_windows": timed.retried_windows if config.thins_padding and not config.random_weights else None,
            "latency_p50_ms": timed.latency_ms(50),
            "latency_p95_ms": timed.latency_ms(95),
            "scaling_efficiency": 100 * timed.reqs_per_sec / sum(single_gpu_rates) if single_gpu_rates else None,
            "gpu_util_mean": gpu.util_mean if gpu else None,
            "gpu_memory_peak_mib": gpu.memory_peak_mib if gpu else None,
            "gpu_power_mean_watts": gpu.power_mean_watts if gpu else None,
            "energy_wh_per_audio_hour": None if gpu is None or gpu.energy_wh is None else gpu.energy_wh / audio_hours,
            "usd_per_audio_hour": config.gpu_hourly_usd and config.gpu_hourly_usd * gpu_hours / audio_hours,
        }
    )


def _measured(found: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in found.items() if value is not None}


def warnings_of(config: BenchmarkConfig, timed: Pass) -> list[str]:
    """Warnings of a pass: warnings of the GPU monitor, the reason why it is invalid, and unequal load of engines."""
    found, usage = list(timed.gpu.warnings) if timed.gpu else [], timed.usage
    if timed.invalid:
        found.append(f"the speed was not measured: {timed.invalid}")
    elif usage:
        if usage.slowest_engine_percent < SLOW_ENGINE:
            found.append(f"the slowest engine did {usage.slowest_engine_percent:.0f} % of the median engine's audio")
        if usage.tail_seconds > LONG_TAIL * timed.wall_seconds:
            tail = 100 * usage.tail_seconds / timed.wall_seconds
            found.append(
                f"an engine was idle in the last {tail:.0f} % of the time: use corpus_copies={2 * config.corpus_copies}"
            )
    return found


def initial_tags(info: RunInfo) -> dict[str, str]:
    """Tags that are known before the engine starts."""
    return {
        names.KIND: "benchmark",
        names.SCHEMA_TAG: names.SCHEMA,
        names.CORPUS: data_label(info.config),
        names.CONFIG_DIGEST: info.config.digest,
        names.OPTIONS_TAG: keys.key(**identifying(info.config)),
        names.DATASET_DIGEST: info.dataset.digest,
        **({} if info.git_dirty is None else {names.GIT_DIRTY: str(info.git_dirty).lower()}),
    }


def identifying(config: BenchmarkConfig) -> dict[str, str]:
    """The model, and the options of the configuration that differ from their defaults."""
    options = config.declared()
    return {"model": config.model} | {n: text for n, text in config.changed().items() if options[n].identity}


def run_tags(info: RunInfo, engine: EngineInfo, normalizer: str, measurement: Measurement) -> dict[str, str]:
    """All tags: `initial_tags`, the comparability keys, the signature, and warnings."""
    config, digest, disturbance = info.config, info.dataset.digest, measurement.disturbance
    warnings = sorted({text for each in measurement.passes for text in warnings_of(config, each)})
    tags = {
        **initial_tags(info),
        names.ACCURACY_KEY: keys.accuracy_key(config, digest, normalizer),
        names.SPEED_KEY: keys.speed_key(config, digest, info.hardware),
        names.SIGNATURE: keys.signature(info, engine, normalizer),
    }
    if disturbance and measurement.is_disturbed:
        tags[names.DISTURBED] = disturbance
        warnings.append(f"{disturbance}; the speed is not ranked")
    elif disturbance:
        warnings.append(disturbance)
    if warnings:
        tags[names.WARNINGS] = "; ".join(warnings)
    return tags
