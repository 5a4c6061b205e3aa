"""What the engines that are not vLLM share, with a hand-written one; and each of them on real speech, where it is."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from tests.support.fakes import NO_GPU
from whisperbench.checkpoint.checkpoint import Checkpoint, resolve_model
from whisperbench.config.benchmark import PEERS, BenchmarkConfig
from whisperbench.corpus.corpus import load_corpus
from whisperbench.engines import start
from whisperbench.engines.hardware import engine_version
from whisperbench.engines.settings import engine_settings
from whisperbench.files import cache_directory
from whisperbench.measure.score import score
from whisperbench.measure.timing import result_of

MODULES = {"faster-whisper": "faster_whisper", "transformers": "transformers", "openai-whisper": "whisper"}


@pytest.fixture(scope="module")
def demo() -> Checkpoint:
    return resolve_model("demo", "main", cache_dir=cache_directory(), random_weights=False)


@pytest.mark.parametrize("engine", PEERS)
def test_a_peer_knows_its_speech(engine: str, demo: Checkpoint, tmp_path: Path) -> None:
    """The eight demo clips under 6 % WER; and, where it takes random weights, as many tokens as are asked for."""
    if importlib.util.find_spec(MODULES[engine]) is None:
        pytest.skip(f"{engine} is not installed: make peers")
    config = BenchmarkConfig(engine=engine, model="demo", corpus="demo")
    utterances = load_corpus("demo", "all", 0).utterances
    started = start.start_engine(engine_settings(config, demo, NO_GPU), NO_GPU, tmp_path / "engine.log")
    by_id = {utterance.utt_id: utterance for utterance in utterances}
    found = [result_of(by_id[text.utt_id], text, 0, 0.0) for text in started.transcribe(utterances)]
    assert started.facts.engine_version == engine_version(engine)
    wer = score(found, "en", 32).wer
    assert wer is not None
    assert wer < 6
    if engine == "faster-whisper":
        return
    random = BenchmarkConfig(engine=engine, model="tiny.en", load_format="dummy", batch_size=0)
    shape = resolve_model("tiny.en", "main", cache_dir=tmp_path, random_weights=True)
    started = start.start_engine(engine_settings(random, shape, NO_GPU), NO_GPU, tmp_path / "random.log")
    forced = [dataclasses.replace(utterance, forced_tokens=7) for utterance in utterances[:3]]
    assert [text.tokens for text in started.transcribe(forced)] == [7, 7, 7]
