"""One real engine start: everything that a run holds, and what other commands do with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import PROJECT, command, run
from tests.support.stores import all_runs
from whisperbench.results.transcripts import COLUMNS
from whisperbench.tracking.client import connect

PARAMS = (
    *("model", "kv_cache_dtype", "max_num_seqs", "gpu_name", "gpu_count", "cpu_cores", "corpus", "dtype", "engine"),
    *("model_id", "model_revision_resolved", "load_format", "max_num_batched_tokens", "padding_stride", "mel_device"),
    *("repeats", "engine_version", "torch_version", "normalizer"),
)
METRICS = (
    *("wer", "cer", "substitutions", "deletions", "insertions", "reference_words"),
    *("reqs_per_sec", "rtfx", "output_tokens_per_sec", "wall_seconds", "audio_seconds", "utterances"),
    *("utterances_over_30s", "silent_utterances", "engine_load_seconds", "warmup_seconds"),
    *("latency_p50_ms", "latency_p95_ms"),
)
GPU_METRICS = ("gpu_util_mean", "gpu_memory_peak_mib", "gpu_power_mean_watts", "energy_wh_per_audio_hour")
TAGS = (
    *("whisperbench.kind", "whisperbench.schema", "whisperbench.accuracy_key", "whisperbench.speed_key"),
    *("whisperbench.signature", "whisperbench.config_digest", "dataset.digest"),
)


@pytest.mark.usefixtures("no_project_run", "leaves_nothing")
def test_a_run_of_the_real_engine_is_complete(tmp_path: Path) -> None:
    """Params, metrics, tags and files on a store that did not exist; then `compare` ranks it and `upload` skips it."""
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}", "CUDA_VISIBLE_DEVICES": ""}
    options = {"model": "demo", "corpus": "demo", "padding_stride": 16, "results_dir": "results"}
    status, out, err = run(command("benchmark"), tmp_path, options, **environment)
    assert status == 0, err[-3000:]
    line = out.splitlines()[-1]
    assert line.startswith("WER: ")
    assert "| model: demo | kv_cache_dtype: auto | max_num_seqs: 128 " in line

    client = connect(environment["MLFLOW_TRACKING_URI"])
    (held,) = all_runs(client)
    assert held.info.status == "FINISHED"
    assert "stride16" in held.info.run_name
    assert set(PARAMS) == held.data.params.keys()
    assert (held.data.params["padding_stride"], held.data.params["gpu_count"]) == ("16", "0")
    assert held.data.params["model_id"] == "openai/whisper-tiny.en"
    assert set(METRICS) <= held.data.metrics.keys()
    assert not set(GPU_METRICS) & held.data.metrics.keys(), "without a GPU its metrics are absent"
    assert set(TAGS) <= held.data.tags.keys()
    assert ("git.dirty" in held.data.tags) == (PROJECT / ".git").exists()
    assert held.data.metrics["wer"] < 6
    assert f"WER: {held.data.metrics['wer']:.2f} | throughput: {held.data.metrics['reqs_per_sec']:.2f} reqs/sec" in line
    assert held.inputs.dataset_inputs[0].dataset.digest == held.data.tags["dataset.digest"]
    artifacts = Path(client.download_artifacts(held.info.run_id, "", str(tmp_path)))
    expected = {"transcripts.json", "samples", "summary.md", "environment.txt", "config.json", "engine.log"}
    assert expected <= {path.name for path in artifacts.iterdir()}
    table = json.loads((artifacts / "transcripts.json").read_text(encoding="utf-8"))
    assert table["columns"] == list(COLUMNS)
    assert len(table["data"]) == 8
    assert (artifacts / "samples" / "samples.html").read_text(encoding="utf-8").count("<audio") >= 7

    status, out, err = run(command("compare"), tmp_path, {}, **environment)
    assert status == 0, err
    assert f"{held.data.metrics['wer']:.2f}" in out
    status, out, err = run(command("upload"), tmp_path, {"bundles": "results/*"}, **environment)
    assert (status, f"already in run {held.info.run_id}" in out) == (0, True), out + err
    assert len(all_runs(client, "tags.`whisperbench.kind` = 'benchmark'")) == 1
