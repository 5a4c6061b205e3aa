"""Descriptions of a run: the result line on stdout, summary.md, and the description during the measurement."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from whisperbench.config.benchmark import OPTIONS, BenchmarkConfig
from whisperbench.engines.hardware import NOT_REPORTED, Hardware
from whisperbench.results.names import METRICS, PROGRESS, SIGNATURE, WARNINGS, error_metric
from whisperbench.results.record import spread_percent
from whisperbench.results.run_info import Dataset
from whisperbench.results.run_name import data_label, setting_name
from whisperbench.text import code_span, markdown

ALWAYS_SHOWN = ("model", "kv_cache_dtype", "max_num_seqs")
"""Options that are in every result line, unless the engine does not have them."""
NAMED_WITHOUT_IDENTITY = ("repeats",)
"""Options that affect how a speed is read, although runs that differ in them are repeats."""

IN_PROGRESS = f"The measurement is running. The tag `{PROGRESS}` shows its progress.\n\n"
"""First paragraph of a run's description until the run is closed."""


def result_block(
    config: BenchmarkConfig,
    params: Mapping[str, str],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    history: Mapping[str, Sequence[float]],
) -> str:
    """The result in four lines for reading, and a line for the warnings, if there are any."""
    error = error_metric(metrics)
    unit = "characters" if error == "cer" else "words"
    size = f"{data_label(config)}: {metrics['utterances']:,.0f} utterances"
    if error in metrics:
        size += f", {metrics[f'reference_{unit}']:,.0f} {unit}"
    rates = history.get("reqs_per_sec", ())
    noise = f"n = {len(rates)}, spread {spread_percent(rates):.1f} %" if len(rates) > 1 else "n = 1, noise unknown"
    speed = ["not measured"]
    if "reqs_per_sec" in metrics:
        speed = [f"{metrics['reqs_per_sec']:.2f} requests/s", f"RTFx {metrics['rtfx']:.1f}", noise]
    shown = (each for each in _named(config).items() if OPTIONS[each[0]].group != "Data" and each[0] != "dtype")
    settings = [f"{name}={text}" for name, text in shown]
    rows = {
        error.upper(): [_error_rate(config, metrics, error), size],
        "throughput": speed,
        "model": [", ".join([params["model_id"], params["dtype"], *settings])],
        "hardware": [f"{_hardware(params)}, {params['cpu_cores']} cores"],
        "warning": [tags[WARNINGS]] if WARNINGS in tags else [],
    }
    return "\n".join(f"{name:<12} {'   '.join(cells)}" for name, cells in rows.items() if cells)


def result_line(config: BenchmarkConfig, params: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """The last line on stdout: WER or CER, throughput, the options of ALWAYS_SHOWN, other options, and the GPU."""
    error = error_metric(metrics)
    errors = f"{error.upper()}: {metrics[error]:.2f}" if error in metrics else "WER: not measured"
    texts = config.as_params()
    named = {name: texts[name] for name in ALWAYS_SHOWN if OPTIONS[name].has(config.engine)} | _named(config)
    options = " | ".join(f"{name}: {text}" for name, text in named.items())
    rate = f"{metrics['reqs_per_sec']:.2f} reqs/sec" if "reqs_per_sec" in metrics else "not measured"
    return f"{errors} | throughput: {rate} | {options} | gpu: {_hardware(params)}"


def _named(config: BenchmarkConfig) -> dict[str, str]:
    """The options except the model that differ from their defaults and affect the result or how it is read."""
    return {
        name: text
        for name, text in config.changed().items()
        if name != "model" and (OPTIONS[name].identity or name in NAMED_WITHOUT_IDENTITY)
    }


def _error_rate(config: BenchmarkConfig, metrics: Mapping[str, float], error: str) -> str:
    """The error rate with its interval, or the reason why it was not measured."""
    if error not in metrics:
        reason = "the references contain no words" if "insertions" in metrics else "the corpus has no transcripts"
        return f"not measured ({'random weights' if config.random_weights else reason})"
    interval = _interval(metrics, error)
    return f"{metrics[error]:.2f} %{f'   ({interval})' if interval else ''}"


def _interval(metrics: Mapping[str, float], name: str) -> str:
    """`95 % interval 1.40 to 4.81`; an empty string if the interval was not measured."""
    low, high = metrics.get(f"{name}_ci_low"), metrics.get(f"{name}_ci_high")
    return "" if low is None or high is None else f"95 % interval {low:.2f} to {high:.2f}"


def _hardware(params: Mapping[str, str]) -> str:
    """`2 × NVIDIA H100 80GB HBM3`, or the name of a CPU."""
    gpus = f"{params['gpu_count']} × " if int(params["gpu_count"]) > 1 else ""
    return f"{gpus}{params.get('gpu_name', NOT_REPORTED)}"


def command_line(config: BenchmarkConfig) -> str:
    """The command with the model and all non-default options, like `mlflow run . -P model=large-v3 -P limit=8`."""
    changed = {"model": config.model} | config.changed()
    return " ".join(["mlflow run .", *(f"-P {shlex.quote(f'{name}={value}')}" for name, value in changed.items())])


def announcement(config: BenchmarkConfig, dataset: Dataset | None, hardware: Hardware) -> str:
    """The description of a run in markdown during the measurement; closing a failed run removes IN_PROGRESS."""
    size = "" if dataset is None else f" ({dataset.rows:,} utterances)"
    setting, data = markdown(setting_name(config)), markdown(data_label(config))
    return (
        f"{IN_PROGRESS}{setting} on {data}{size}, {hardware.gpu_name}.\n\nCommand: {code_span(command_line(config))}\n"
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
            interval = f" ({found})" if (found := _interval(metrics, metric.name)) else ""
            rows.append(f"| {metric.name} | {metrics[metric.name]:,.{metric.digits}f} {metric.unit}{interval} |")
    notes = []
    if len(rates := history.get("reqs_per_sec", ())) > 1:
        each = ", ".join(f"{rate:.2f}" for rate in rates)
        notes.append(f"Median of {len(rates)} repeats: {each} reqs/sec (spread {spread_percent(rates):.1f} %).")
    if error_metric(metrics) not in metrics:
        silent = (
            " If it contains no speech, every transcribed word is invented." if "words_per_minute" in metrics else ""
        )
        notes.append(f"**WER** {_error_rate(config, metrics, 'wer')}.{silent}")
    if WARNINGS in tags:
        notes.append(f"**Warning**: {markdown(tags[WARNINGS])}.")
    if config.long_audio != "split" and metrics.get("utterances_over_30s"):
        count = f"{metrics['utterances_over_30s']:.0f}"
        notes.append(f"Utterances over 30 s (long_audio={config.long_audio}): {count}.")
    table = "\n".join(["| metric | value |", "|---|---|", *rows])
    command = f"Command: {code_span(command_line(config))}"
    signature = f"Signature: {code_span(tags[SIGNATURE])}"
    parts = [code_span(result_line(config, params, metrics)), *notes, table, command, signature]
    return "\n\n".join(parts) + "\n"
