"""The benchmark flow as people start it: bad input ends as a FAILED run; `mlflow run` ends as a full one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from flows.benchmark import main
from tests.support.stores import fresh_store
from whisperbench.options.benchmark import BenchmarkConfig
from whisperbench.results.names import FAILURE
from whisperbench.results.transcripts import TRANSCRIPT_COLUMNS

PROJECT = Path(__file__).resolve().parents[2]

Command = Callable[..., Result]


@pytest.fixture
def store(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, no_project_run: None
) -> mlflow.MlflowClient:
    address = fresh_store(tmp_path, empty_store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    return mlflow.MlflowClient(address)


@pytest.fixture
def benchmark(tmp_path: Path, store: mlflow.MlflowClient) -> Command:
    def run(**options: object) -> Result:
        chosen = {"model": "demo", "corpus": "demo", "results_dir": str(tmp_path / "results"), **options}
        return CliRunner().invoke(main, [f"--{name}={value}" for name, value in chosen.items()])

    return run


def folder(path: Path, **files: bytes | str) -> Path:
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        target = path / name.replace("__", ".")
        target.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fifo(path: Path, name: str) -> Path:
    os.mkfifo(path / name)
    return path


def speech(seconds: float = 1.0) -> bytes:
    import io

    out = io.BytesIO()
    soundfile.write(out, np.random.default_rng(1).uniform(-0.1, 0.1, int(16_000 * seconds)), 16_000, format="FLAC")
    return out.getvalue()


BAD: dict[str, tuple[Callable[[Path], dict[str, object]], str]] = {
    "unknown alias": (lambda _: {"model": "large-v33"}, "large-v3"),
    "no such corpus": (lambda p: {"corpus": p / "nowhere"}, "nowhere"),
    "no audio in it": (lambda p: {"corpus": folder(p / "c", notes__txt="hello")}, "c"),
    "transcript without audio": (
        lambda p: {"corpus": folder(p / "c", a__flac=speech(), t__trans__txt="a HELLO\nb WORLD\n")},
        "b",
    ),
    "audio without transcript": (
        lambda p: {"corpus": folder(p / "c", a__flac=speech(), b__flac=speech(), t__trans__txt="a HELLO\n")},
        "b.flac",
    ),
    "truncated flac": (
        lambda p: {"corpus": folder(p / "c", a__flac=speech(3.0)[:-2000], t__trans__txt="a HELLO\n")},
        "a.flac",
    ),
    "empty file": (lambda p: {"corpus": folder(p / "c", a__wav=b"", t__trans__txt="a HELLO\n")}, "a.wav"),
    "not utf-8": (
        lambda p: {"corpus": folder(p / "c", a__flac=speech(), t__trans__txt=b"a CAF\xc9\n")},
        "t.trans.txt",
    ),
    "duplicate ids": (
        lambda p: {"corpus": folder(p / "c", a__flac=speech(), t__trans__txt="a HELLO\na WORLD\n")},
        "a",
    ),
    "a reference that cannot be normalised": (
        lambda p: {"corpus": folder(p / "c", a__flac=speech(), t__trans__txt=f"a {'9' * 5_000}\n")},
        "cannot be normalised",
    ),
    "a fifo": (lambda p: {"corpus": fifo(folder(p / "c"), "a.wav")}, "a.wav cannot be read: it is a FIFO"),
    "nothing is left": (
        lambda p: {"corpus": folder(p / "c", a__flac=speech(31.0), t__trans__txt="a HELLO\n"), "long_audio": "drop"},
        "long_audio=split",
    ),
    "limit beyond the corpus": (lambda _: {"limit": 9}, "8"),
    "fp8 on a cpu": (lambda _: {"kv_cache_dtype": "fp8"}, "kv_cache_dtype=auto"),
    "not whisper": (
        lambda p: {"model": folder(p / "m", config__json=json.dumps({"model_type": "llama"}))},
        "llama",
    ),
    "language of an English model": (lambda _: {"language": "de"}, "language=en"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_as_a_failed_run(
    case: str, benchmark: Command, store: mlflow.MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear line that names what is wrong, a non-zero exit, and a run that is FAILED with the cause in a tag."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    options, named = BAD[case]
    result = benchmark(**options(tmp_path))
    assert result.exit_code in {1, 2}, result.output
    assert "error: " in result.stderr
    assert named in result.stderr.partition("error: ")[2]
    assert "Traceback" not in result.output
    (run,) = store.search_runs(["0"])
    assert run.info.status == "FAILED"
    assert named in run.data.tags[FAILURE]
    assert run.data.tags["mlflow.note.content"].startswith("**FAILED**\n\n    ")
    assert run.data.params["max_num_seqs"] == "128"
    assert "`mlflow run . -P model=" in run.data.tags["mlflow.note.content"]


def test_a_bad_option_is_refused_before_a_run_is_opened(benchmark: Command, store: mlflow.MlflowClient) -> None:
    """Validation comes first: nothing heavy is imported and no run is left behind."""
    result = benchmark(max_num_seqs=0)
    assert result.exit_code == 2
    assert "max_num_seqs='0' is not allowed: expected a number of 1 or more" in result.stderr
    assert store.search_runs(["0"]) == []


def test_help_answers_at_once() -> None:
    """Neither MLflow nor vLLM is imported for `--help`, which names every option with its default."""
    code = (
        "import sys; from click.testing import CliRunner; from flows.benchmark import main\n"
        "print(CliRunner().invoke(main, ['--help']).output)\n"
        "print([m for m in ('mlflow', 'vllm', 'torch', 'transformers', 'datasets', 'librosa') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": "src"},
    )  # fmt: skip
    assert done.stdout.rstrip().endswith("[]")
    for name in BenchmarkConfig().as_params():
        assert f"--{name}" in done.stdout


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


@pytest.mark.engine
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
    assert table["columns"] == list(TRANSCRIPT_COLUMNS)
    assert len(table["data"]) == 8
    page = Path(client.download_artifacts(run.info.run_id, "samples/samples.html")).read_text()
    assert page.count("<audio") >= 7
