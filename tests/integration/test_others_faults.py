"""Engines that cannot work: their runs end as every failed run does, or are refused before they exist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support.commands import invoke
from whisperbench.config.benchmark import OTHER_ENGINES
from whisperbench.engines import hardware, start
from whisperbench.engines.others.base import BatchEngine
from whisperbench.engines.others.faster_whisper import FasterWhisper
from whisperbench.engines.others.hf_transformers import TransformersWhisper
from whisperbench.engines.others.openai_whisper import OpenaiWhisper
from whisperbench.results.bundle import PARTIAL
from whisperbench.results.names import FAILURE

NO_MEMORY = "CUDA out of memory. Tried to allocate 2.34 GiB."
FAULTS: dict[str, tuple[type[BatchEngine], str, Exception, str]] = {
    "faster-whisper": (FasterWhisper, "load", RuntimeError(NO_MEMORY), "Lower batch_size=8."),
    "transformers": (TransformersWhisper, "transcribe_batch", MemoryError(NO_MEMORY), "Lower batch_size=8."),
    "openai-whisper": (OpenaiWhisper, "load", RuntimeError(NO_MEMORY), "Use a smaller model"),
}
"""Where each engine fails, how, and the advice."""
pytestmark = pytest.mark.usefixtures("no_project_run")


def raising(error: Exception) -> Callable[..., NoReturn]:
    def fail(*_: Any) -> NoReturn:
        raise error

    return fail


@pytest.fixture(autouse=True)
def all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    known = start.installed_version
    monkeypatch.setattr(start, "installed_version", lambda name: "1.0" if name in OTHER_ENGINES else known(name))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def options(tmp_path: Path, engine: str) -> dict[str, object]:
    return {"engine": engine, "model": "demo", "corpus": "demo", "results_dir": tmp_path / "results"}


@pytest.mark.parametrize("engine", FAULTS)
def test_out_of_memory(engine: str, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the option to change, the run holds the engine's log, and no result is left."""
    kind, method, error, advice = FAULTS[engine]
    monkeypatch.setattr(kind, "load", lambda _: "float16")
    monkeypatch.setattr(kind, method, raising(error))
    result = invoke("benchmark", **options(tmp_path, engine))
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FAILED"
    for part in (engine, NO_MEMORY, advice):
        assert part in result.stderr.partition("error: ")[2]
        assert part in run.data.tags[FAILURE]
    assert "engine.log" in [each.path for each in client.list_artifacts(run.info.run_id)]
    assert [path.name for path in (tmp_path / "results").glob("*") if not path.name.endswith(PARTIAL)] == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        *(({"engine": engine, "kv_cache_dtype": "fp8"}, "kv_cache_dtype=fp8") for engine in OTHER_ENGINES),
        ({"engine": "openai-whisper", "dtype": "bfloat16"}, "float32"),
        ({"engine": "transformers", "gpus": 3}, "pip install ray=="),
    ],
)
def test_a_configuration_that_cannot_run_is_refused(
    wrong: dict[str, object], message: str, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a run is created or an engine is announced: an option, a type, or several engines without Ray."""
    monkeypatch.setattr(hardware, "installed_version", lambda _name: None)
    result = invoke("benchmark", **{**options(tmp_path, ""), **wrong})
    assert result.exit_code == 2
    assert message in result.stderr
    assert "starting" not in result.stderr
    assert client.search_runs(["0"]) == []
