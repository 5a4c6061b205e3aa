"""Descriptions of a run: the result on stdout, summary.md, and the description during the measurement."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from whisperbench.config.benchmark import OPTIONS, BenchmarkConfig
from whisperbench.engines.hardware import NOT_REPORTED
from whisperbench.results.names import METRICS, PROGRESS, SIGNATURE, WARNINGS, error_metric
from whisperbench.results.record import spread_percent
from whisperbench.results.run_info import RunData
from whisperbench.results.run_name import data_label
from whisperbench.text import code_span, markdown

ALWAYS_SHOWN = ("model", "kv_cache_dtype", "max_num_seqs")
"""Options that are in every result line, unless the engine does not have them."""
IN_PROGRESS = f"The measurement is running. The tag `{PROGRESS}` shows its progress.\n\n"
"""First paragraph of a run's description until the run is closed."""


def result_block(config: BenchmarkConfig, run: RunData) -> str:
    """The result in four lines for reading, and a line for the warnings, if there are any."""
    metrics, error = run.metrics, error_metric(run.metrics)
    unit = "characters" if error == "cer" else "words"
    size = f"{data_label(config)}: {metrics['utterances']:,.0f} utterances"
    if error in metrics:
        size += f", {metrics[f'reference_{unit}']:,.0f} {unit}"
    rates = run.history.get("reqs_per_sec", ())
    noise = f"n = {len(rates)}, spread {spread_percent(rates):.1f} %" if len(rates) > 1 else "n = 1, noise unknown"
    speed = [f"{metrics['reqs_per_sec']:.2f} requests/s", f"RTFx {metrics['rtfx']:.1f}", noise] if rates else []
    options = {name: text for name, text in _named(config).items() if OPTIONS[name].group != "Data" and name != "dtype"}
    settings = [f"{name}={text}" for name, text in options.items()]
    rows = {
        error.upper(): [_error_rate(config, metrics), size],
        "throughput": speed or ["not measured"],
        "model": [", ".join([run.params["model_id"], run.params["dtype"], *settings])],
        "hardware": [f"{_hardware(run.params)}, {run.params['cpu_cores']} cores"],
        "warning": [run.tags[WARNINGS]] if WARNINGS in run.tags else [],
    }
    return "\n".join(f"{name:<12} {'   '.join(cells)}" for name, cells in rows.items() if cells)


def result_line(config: BenchmarkConfig, run: RunData) -> str:
    """The last line on stdout: WER or CER, throughput, the options of ALWAYS_SHOWN, other options, and the GPU."""
    metrics, error, texts = run.metrics, error_metric(run.metrics), config.as_params()
    errors = f"{error.upper()}: {metrics[error]:.2f}" if error in metrics else "WER: not measured"
    named = {name: texts[name] for name in ALWAYS_SHOWN if OPTIONS[name].has(config.engine)} | _named(config)
    options = " | ".join(f"{name}: {text}" for name, text in named.items())
    rate = f"{metrics['reqs_per_sec']:.2f} reqs/sec" if "reqs_per_sec" in metrics else "not measured"
    return f"{errors} | throughput: {rate} | {options} | gpu: {_hardware(run.params)}"


def _named(config: BenchmarkConfig) -> dict[str, str]:
    """The options except the model that differ from their defaults and affect the result or how it is read."""
    return {
        name: text
        for name, text in config.changed().items()
        if name != "model" and (OPTIONS[name].identity or OPTIONS[name].param != "never")
    }


def _error_rate(config: BenchmarkConfig, metrics: Mapping[str, float]) -> str:
    """The error rate with its interval, or the reason why it was not measured."""
    error = error_metric(metrics)
    if error in metrics:
        interval = _interval(metrics, error)
        return f"{metrics[error]:.2f} %{f'   ({interval})' if interval else ''}"
    reason = "the references contain no words" if "insertions" in metrics else "the corpus has no transcripts"
    return f"not measured ({'random weights' if config.random_weights else reason})"


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


def announcement(config: BenchmarkConfig) -> str:
    """The description of a run in markdown during the measurement; closing a failed run removes IN_PROGRESS."""
    return f"{IN_PROGRESS}Command: {code_span(command_line(config))}\n"


def summary(config: BenchmarkConfig, run: RunData) -> str:
    """The result in markdown: the result line, notes, the measured metrics, the command and the signature."""
    metrics, notes = run.metrics, []
    if len(rates := run.history.get("reqs_per_sec", ())) > 1:
        each = ", ".join(f"{rate:.2f}" for rate in rates)
        notes.append(f"Median of {len(rates)} repeats: {each} reqs/sec (spread {spread_percent(rates):.1f} %).")
    if error_metric(metrics) not in metrics:
        notes.append(f"**WER** {_error_rate(config, metrics)}.")
    if WARNINGS in run.tags:
        notes.append(f"**Warning**: {markdown(run.tags[WARNINGS])}.")
    if config.long_audio != "split" and metrics.get("utterances_over_30s"):
        count = f"{metrics['utterances_over_30s']:.0f}"
        notes.append(f"Utterances over 30 s (long_audio={config.long_audio}): {count}.")
    table = ["| metric | value |", "|---|---|"]
    for metric in METRICS:
        if metric.in_summary and metric.name in metrics:
            interval = f" ({found})" if (found := _interval(metrics, metric.name)) else ""
            table.append(f"| {metric.name} | {metrics[metric.name]:,.{metric.digits}f} {metric.unit}{interval} |")
    command = f"Command: {code_span(command_line(config))}"
    signature = f"Signature: {code_span(run.tags[SIGNATURE])}"
    return "\n\n".join([code_span(result_line(config, run)), *notes, "\n".join(table), command, signature]) + "\n"
