"""The benchmark flow as people start it: bad input ends as a FAILED run; `mlflow run` ends as a full one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow

from tests.integration.test_benchmark import PROJECT
from tests.support.stores import fresh_store
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.results.transcripts import COLUMNS

DESIGNED_METRICS = (
    *("wer", "cer", "wer_ci_low", "wer_ci_high", "substitutions", "deletions", "insertions", "reference_words"),
    *("reqs_per_sec", "rtfx", "output_tokens_per_sec", "wall_seconds", "audio_seconds", "utterances"),
    *("utterances_over_30s", "engine_load_seconds", "warmup_seconds", "latency_p50_ms", "latency_p95_ms"),
)
GPU_METRICS = ("gpu_util_mean", "gpu_memory_peak_mib", "gpu_power_mean_watts", "energy_wh_per_audio_hour")
DESIGNED_TAGS = (
    *("whisperbench.kind", "whisperbench.schema", "whisperbench.accuracy_key", "whisperbench.speed_key"),
    *("whisperbench.signature", "whisperbench.config_digest", "dataset.digest"),
)


def test_mlflow_run_leaves_a_whole_run(tmp_path: Path, empty_store: Path, no_project_run: None) -> None:
    """`mlflow run . -P model=demo -P corpus=demo` with the real engine, read back from the store."""
    address = fresh_store(tmp_path, empty_store)
    options = {"model": "demo", "corpus": "demo", "max_num_seqs": "16", "repeats": "2", "results_dir": f"{tmp_path}/r"}
    command = [sys.executable, "-m", "mlflow", "run", ".", "--env-manager", "local", "--experiment-name", "speech"]
    done = subprocess.run(
        command + [word for name, value in options.items() for word in ("-P", f"{name}={value}")],
        cwd=PROJECT, capture_output=True, text=True, timeout=800, check=False,
        env={
            **os.environ, "MLFLOW_TRACKING_URI": address, "CUDA_VISIBLE_DEVICES": "",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    line = done.stdout.strip().splitlines()[-1]
    assert line.startswith("WER: ")
    assert "| model: demo | kv_cache_dtype: auto | max_num_seqs: 16 | gpu: " in line

    client = mlflow.MlflowClient(address)
    experiment = client.get_experiment_by_name("speech")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("demo-auto-16_demo_CPU", "FINISHED")
    assert set(BenchmarkConfig().as_params()) <= set(run.data.params)
    assert run.data.params["gpu_count"] == "0"
    for name in ("model_id", "gpu_name", "dtype_effective", "kv_cache_dtype_effective", "vllm_version", "normalizer"):
        assert run.data.params[name], name
    assert set(DESIGNED_METRICS) <= set(run.data.metrics)
    assert not set(GPU_METRICS) & set(run.data.metrics), "no GPU: those metrics are absent"
    assert set(DESIGNED_TAGS) <= set(run.data.tags)
    assert f"WER: {run.data.metrics['wer']:.2f}" in line
    assert len(client.get_metric_history(run.info.run_id, "repeats/reqs_per_sec")) == 2
    assert run.inputs.dataset_inputs[0].dataset.digest == run.data.tags["dataset.digest"]
    assert run.data.tags["mlflow.note.content"].startswith(f"`{line}`")

    artifacts = {a.path for a in client.list_artifacts(run.info.run_id)}
    assert {"transcripts.json", "samples", "plots", "summary.md", "environment.txt"} <= artifacts
    table = json.loads(Path(client.download_artifacts(run.info.run_id, "transcripts.json")).read_text())
    assert table["columns"] == list(COLUMNS)
    assert len(table["data"]) == 8
    page = Path(client.download_artifacts(run.info.run_id, "samples/samples.html")).read_text()
    assert page.count("<audio") >= 7
