"""Descriptions of a run: the result line on stdout, summary.md, and the description during the measurement."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from whisperbench.config.benchmark import OPTIONS, BenchmarkConfig
from whisperbench.config.option import labels
from whisperbench.engines.hardware import NOT_REPORTED, Hardware
from whisperbench.results.keys import fields_of
from whisperbench.results.names import METRICS, OPTIONS_TAG, PROGRESS, SIGNATURE, WARNINGS, error_metric
from whisperbench.results.record import spread_percent
from whisperbench.results.run_info import Dataset
from whisperbench.results.run_name import data_label, setting_name

ALWAYS_SHOWN = ("model", "kv_cache_dtype", "max_num_seqs")
"""Options that are in every result line, unless the engine does not have them."""

IN_PROGRESS = f"The measurement is running. The tag `{PROGRESS}` shows its progress.\n\n"
"""First paragraph of a run's description until the run is closed."""


def result_line(params: Mapping[str, str], metrics: Mapping[str, float], tags: Mapping[str, str]) -> str:
    """The last line on stdout: WER or CER, throughput, the options of ALWAYS_SHOWN, other options, and the GPU."""
    error = error_metric(metrics)
    errors = f"{error.upper()}: {metrics[error]:.2f}" if error in metrics else "WER: not measured"
    named = [f"{name}: {params[name]}" for name in ALWAYS_SHOWN if OPTIONS[name].has(params["engine"])]
    changed = fields_of(tags[OPTIONS_TAG])
    named += [label for name, label in labels(OPTIONS, changed).items() if name not in ALWAYS_SHOWN]
    rate = f"{metrics['reqs_per_sec']:.2f} reqs/sec" if "reqs_per_sec" in metrics else "not measured"
    gpus = f"{params['gpu_count']} × " if int(params.get("gpu_count", 1)) > 1 else ""
    return f"{errors} | throughput: {rate} | {' | '.join(named)} | gpu: {gpus}{params.get('gpu_name', NOT_REPORTED)}"


def command_line(config: BenchmarkConfig) -> str:
    """The command with the model and all non-default options, like `mlflow run . -P model=large-v3 -P limit=8`."""
    changed = {"model": config.model} | config.changed()
    return " ".join(["mlflow run .", *(f"-P {shlex.quote(f'{name}={value}')}" for name, value in changed.items())])


def announcement(config: BenchmarkConfig, dataset: Dataset | None, hardware: Hardware) -> str:
    """The description of a run in markdown during the measurement; closing a failed run removes IN_PROGRESS."""
    size = "" if dataset is None else f" ({dataset.rows:,} utterances)"
    return (
        f"{IN_PROGRESS}{setting_name(config)} on {data_label(config)}{size}, {hardware.gpu_name}.\n\n"
        f"Command: `{command_line(config)}`\n"
    )


def summary(
    config: BenchmarkConfig,
    params: Mapping[str, str],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    history: Mapping[str, Sequence[float]],
) -> str:
    """The result in markdown: the result line, notes, the measured metrics, the command and the signature."""
    rows = []
    for metric in METRICS:
        if metric.in_summary and metric.name in metrics:
            interval = ""
            if (low := f"{metric.name}_ci_low") in metrics:
                interval = f" (95 % interval {metrics[low]:.2f} to {metrics[f'{metric.name}_ci_high']:.2f})"
            rows.append(f"| {metric.name} | {metrics[metric.name]:,.{metric.digits}f} {metric.unit}{interval} |")
    notes = []
    if len(rates := history.get("reqs_per_sec", ())) > 1:
        each = ", ".join(f"{rate:.2f}" for rate in rates)
        notes.append(f"Median of {len(rates)} repeats: {each} reqs/sec (spread {spread_percent(rates):.1f} %).")
    if error_metric(metrics) not in metrics:
        reason = "the corpus has no transcripts. If it contains no speech, every transcribed word is invented"
        if "insertions" in metrics:
            reason = "the references contain no words"
        notes.append(f"**No WER**: {'random weights' if config.random_weights else reason}.")
    if WARNINGS in tags:
        notes.append(f"**Warning**: {tags[WARNINGS]}.")
    if config.long_audio != "split" and metrics.get("utterances_over_30s"):
        count = f"{metrics['utterances_over_30s']:.0f}"
        notes.append(f"Utterances over 30 s (long_audio={config.long_audio}): {count}.")
    table = "\n".join(["| metric | value |", "|---|---|", *rows])
    command = f"Command: `{command_line(config)}`"
    parts = [f"`{result_line(params, metrics, tags)}`", *notes, table, command, f"Signature: `{tags[SIGNATURE]}`"]
    return "\n\n".join(parts) + "\n"
