"""Each engine beside vLLM when it cannot work: its run ends as every failed run does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import mlflow
import pytest
from click.testing import CliRunner, Result

from flows.benchmark import main
from whisperbench.config.benchmark import OTHER_ENGINES
from whisperbench.engines import start
from whisperbench.engines.others.base import BatchEngine
from whisperbench.engines.others.faster_whisper import FasterWhisper
from whisperbench.engines.others.hf_transformers import TransformersWhisper
from whisperbench.engines.others.openai_whisper import OpenaiWhisper
from whisperbench.results.bundle import PARTIAL
from whisperbench.results.names import FAILURE

KINDS: dict[str, type[BatchEngine]] = {
    "faster-whisper": FasterWhisper,
    "transformers": TransformersWhisper,
    "openai-whisper": OpenaiWhisper,
}
NO_MEMORY = {
    "faster-whisper": "CUDA failed with error out of memory",
    "transformers": "CUDA out of memory. Tried to allocate 2.34 GiB.",
    "openai-whisper": "CUDA out of memory. Tried to allocate 2.34 GiB.",
}
"""As CTranslate2 and torch say it."""
ADVICE = {
    "faster-whisper": "Lower batch_size=8.",
    "transformers": "Lower batch_size=8.",
    "openai-whisper": "Take a smaller model, or a GPU with more memory.",
}
pytestmark = pytest.mark.usefixtures("no_project_run")


def raising(error: Exception) -> Callable[..., NoReturn]:
    def fail(*_: Any) -> NoReturn:
        raise error

    return fail


def benchmark(tmp_path: Path, engine: str, **options: object) -> Result:
    chosen = {"engine": engine, "model": "demo", "corpus": "demo", "results_dir": tmp_path / "results", **options}
    return CliRunner().invoke(main, [f"--{name}={value}" for name, value in chosen.items()])


def failed(client: mlflow.MlflowClient, result: Result, said: str, status: int = 1) -> Any:
    """One line on stderr, the exit status, and the only run FAILED with the same cause; the run."""
    assert result.exit_code == status, result.output
    assert said in result.stderr.partition("error: ")[2]
    assert "Traceback" not in result.output
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FAILED"
    assert said in run.data.tags[FAILURE]
    return run


@pytest.fixture(autouse=True)
def all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    known = start.installed_version
    monkeypatch.setattr(start, "installed_version", lambda name: "1.0" if name in OTHER_ENGINES else known(name))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.parametrize("engine", OTHER_ENGINES)
class TestPeer:
    def test_out_of_memory_at_its_start(
        self, engine: str, client: mlflow.MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The run holds the engine's log, and the message the option to change."""
        monkeypatch.setattr(KINDS[engine], "load", raising(RuntimeError(NO_MEMORY[engine])))
        run = failed(client, benchmark(tmp_path, engine), f"{engine} did not start: RuntimeError: {NO_MEMORY[engine]}")
        assert ADVICE[engine] in run.data.tags[FAILURE]
        assert "engine.log" in [each.path for each in client.list_artifacts(run.info.run_id)]

    def test_out_of_memory_at_work(
        self, engine: str, client: mlflow.MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same in the warm-up; nothing is left that looks like a result."""
        monkeypatch.setattr(KINDS[engine], "load", lambda _: "float16")
        monkeypatch.setattr(KINDS[engine], "transcribe_batch", raising(MemoryError(NO_MEMORY[engine])))
        run = failed(client, benchmark(tmp_path, engine), f"{engine} failed: MemoryError: ")
        assert ADVICE[engine] in run.data.tags[FAILURE]
        assert [path.name for path in (tmp_path / "results").glob("*") if not path.name.endswith(PARTIAL)] == []

    def test_a_library_that_is_missing(
        self, engine: str, client: mlflow.MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The package is there and what it loads is not: no advice about memory."""
        said = "Library libcublas.so.12 is not found or cannot be loaded"
        monkeypatch.setattr(KINDS[engine], "load", raising(OSError(said)))
        run = failed(client, benchmark(tmp_path, engine), f"{engine} did not start: OSError: {said}")
        assert "batch_size" not in run.data.tags[FAILURE].partition("\n")[0]

    def test_a_package_that_is_missing(
        self, engine: str, client: mlflow.MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The command that installs it."""
        monkeypatch.setattr(start, "installed_version", lambda _: None)
        failed(client, benchmark(tmp_path, engine), "`make peers` installs it")

    def test_an_option_of_vllm(self, engine: str, client: mlflow.MlflowClient, tmp_path: Path) -> None:
        """Refused before a run is opened, as every combination of options is."""
        result = benchmark(tmp_path, engine, kv_cache_dtype="fp8")
        assert result.exit_code == 2
        assert "kv_cache_dtype=fp8 applies only to engine=vllm or vllm-stock." in result.stderr
        assert client.search_runs(["0"]) == []


def test_a_dtype_that_openai_whisper_has_not(client: mlflow.MlflowClient, tmp_path: Path) -> None:
    """What the hardware decides is known with the run open; the status is that of any wrong option."""
    result = benchmark(tmp_path, "openai-whisper", dtype="bfloat16")
    failed(client, result, "openai-whisper computes in float32 on ", status=2)
