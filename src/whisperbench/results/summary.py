"""A run in words: the line that closes it on stdout, and summary.md."""

from __future__ import annotations

from collections.abc import Mapping

from whisperbench.results.names import METRICS, RANDOM_WEIGHTS, SIGNATURE, WARNINGS


def closing_line(params: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """The last line on stdout, to be pasted in a README."""
    wer = f"{metrics['wer']:.2f}" if "wer" in metrics else "not measured"
    named = " | ".join(f"{name}: {params[name]}" for name in ("model", "kv_cache_dtype", "max_num_seqs"))
    rate = f"{metrics['reqs_per_sec']:.2f} reqs/sec" if "reqs_per_sec" in metrics else "not measured"
    gpus = f"{params['gpu_count']} × " if int(params.get("gpu_count", 1)) > 1 else ""
    return f"WER: {wer} | throughput: {rate} | {named} | gpu: {gpus}{params['gpu_name']}"


def summary(params: Mapping[str, str], metrics: Mapping[str, float], tags: Mapping[str, str]) -> str:
    """The run in markdown: the closing line, the metrics that were measured, and how to repeat it."""
    rows = []
    for metric in METRICS:
        if metric.in_summary and metric.name in metrics:
            interval = ""
            if metric.name == "wer" and "wer_ci_low" in metrics:
                interval = f" (95 % interval {metrics['wer_ci_low']:.2f} to {metrics['wer_ci_high']:.2f})"
            rows.append(f"| {metric.name} | {metrics[metric.name]:,.2f} {metric.unit}{interval} |")
    notes = []
    if "wer" not in metrics:
        silent = "the references hold no words" if "reference_words" in metrics else "the corpus has no transcripts"
        notes.append(f"**No WER**: {'random weights' if tags.get(RANDOM_WEIGHTS) else silent}.")
    if WARNINGS in tags:
        notes.append(f"**Warning**: {tags[WARNINGS]}.")
    if params.get("long_audio") != "split" and metrics.get("utterances_over_30s"):
        notes.append(f"{metrics['utterances_over_30s']:.0f} utterance(s) over 30 s: long_audio={params['long_audio']}.")
    table = "\n".join(["| metric | value |", "|---|---|", *rows])
    return "\n\n".join([f"`{closing_line(params, metrics)}`", *notes, table, f"Signature: `{tags[SIGNATURE]}`"]) + "\n"
