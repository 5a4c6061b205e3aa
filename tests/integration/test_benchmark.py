"""The benchmark flow as people start it: bad input ends as a FAILED run; `mlflow run` ends as a full one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from flows.benchmark import main
from tests.support.stores import fresh_store
from whisperbench.results.names import FAILURE

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
