"""What the engines that are not vLLM share, with a hand-written one; and each of them on real speech, where it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.audio import corpus_of
from tests.support.fakes import NO_GPU, text_of
from whisperbench.checkpoint.checkpoint import Checkpoint, resolve_model
from whisperbench.config.benchmark import OTHER_ENGINES, BenchmarkConfig
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines import hardware, start
from whisperbench.engines.base import Transcription
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


class FakePeer(BatchEngine):
    """A text that depends on the audio alone; remembers the sizes of its batches."""

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


def peer(demo: Checkpoint, folder: Path, kind: type[FakePeer] = FakePeer, **options: Any) -> FakePeer:
    config = BenchmarkConfig(engine="transformers", **{"batch_size": 4, **options})
    return kind(engine_settings(config, demo, NO_GPU), NO_GPU, folder / "engine.log")


def texts(engine: BatchEngine, utterances: Sequence[Utterance]) -> list[Transcription]:
    return list(engine.transcribe(utterances))


def test_every_clip_gets_one_text_in_full_batches(demo: Checkpoint, tmp_path: Path) -> None:
    """Eleven clips, one of them three windows long, are thirteen windows: three batches of four, and the rest."""
    utterances = corpus_of(tmp_path, [2.0] * 5 + [70.0] + [3.0] * 5)
    engine = peer(demo, tmp_path)
    found = texts(engine, utterances)
    assert [text.utt_id for text in found] == [utterance.utt_id for utterance in utterances]
    assert engine.batches == [4, 4, 4, 1]
    assert found[5].windows == 3
    assert all(text.latency_seconds is not None for text in found)


def test_long_audio_is_dropped_as_for_vllm(demo: Checkpoint, tmp_path: Path) -> None:
    """A text without windows, so that the run counts it."""
    found = texts(peer(demo, tmp_path, long_audio="drop"), corpus_of(tmp_path, [2.0, 40.0]))
    assert {text.utt_id: text.windows for text in found} == {"000": 1, "001": 0}


def test_what_a_peer_raises_names_it_and_the_option_to_change(demo: Checkpoint, tmp_path: Path) -> None:
    """A failure of loading and one of work, out of memory or not, are errors of the engine with its log."""

    class NoMemory(FakePeer):
        raises = RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")

    with pytest.raises(EngineError, match=r"transformers did not start: .*out of memory.*batch_size=4") as raised:
        peer(demo, tmp_path, NoMemory)
    assert raised.value.log == tmp_path / "engine.log"
    assert raised.value.log.read_text() == "loading\n"
    engine = peer(demo, tmp_path)
    engine.raises = ValueError("no such kernel")
    with pytest.raises(EngineError, match="transformers failed: ValueError: no such kernel") as raised:
        texts(engine, corpus_of(tmp_path, [2.0]))
    assert "batch_size" not in str(raised.value)


def test_a_file_that_cannot_be_read_ends_the_pass_with_its_name(demo: Checkpoint, tmp_path: Path) -> None:
    """It is no failure of the engine."""
    utterances = corpus_of(tmp_path, [2.0, 2.0])
    Path(str(utterances[1].audio)).write_bytes(b"no audio")
    with pytest.raises(AudioError, match=str(utterances[1].audio)):
        texts(peer(demo, tmp_path), utterances)


@pytest.mark.parametrize("engine", OTHER_ENGINES)
def test_a_peer_that_is_not_installed(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says the command, before a checkpoint is downloaded."""
    monkeypatch.setattr(start, "installed_version", lambda name: None if name == engine else "1.0")
    with pytest.raises(
        EngineError, match=rf"{engine}, which is not installed here. `make install EXTRAS=other-engines`"
    ):
        start.require_engine_for(NO_GPU, engine)
    monkeypatch.setattr(hardware, "installed_version", start.installed_version)
    assert engine_version(engine) is None
    assert engine_version("vllm") == "1.0"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.encoder.conv1.weight", "encoder.conv1.weight"),
        ("model.encoder.embed_positions.weight", "encoder.positional_embedding"),
        ("model.encoder.layer_norm.bias", "encoder.ln_post.bias"),
        ("model.encoder.layers.31.self_attn.k_proj.weight", "encoder.blocks.31.attn.key.weight"),
        ("model.encoder.layers.0.self_attn_layer_norm.weight", "encoder.blocks.0.attn_ln.weight"),
        ("model.encoder.layers.0.final_layer_norm.weight", "encoder.blocks.0.mlp_ln.weight"),
        ("model.decoder.embed_tokens.weight", "decoder.token_embedding.weight"),
        ("model.decoder.layer_norm.weight", "decoder.ln.weight"),
        ("model.decoder.layers.3.encoder_attn.out_proj.bias", "decoder.blocks.3.cross_attn.out.bias"),
        ("model.decoder.layers.3.encoder_attn_layer_norm.bias", "decoder.blocks.3.cross_attn_ln.bias"),
        ("model.decoder.layers.3.fc2.weight", "decoder.blocks.3.mlp.2.weight"),
    ],
)
def test_names_of_weights_in_openai_whisper(name: str, expected: str) -> None:
    """As its model.py has them; that all of them are there is what loading a real checkpoint tells."""
    assert openai_name(name) == expected
