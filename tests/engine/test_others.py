"""The engines beside vLLM on real speech, where they are installed."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from tests.support.fakes import NO_GPU
from whisperbench.checkpoint.checkpoint import Checkpoint, resolve_model
from whisperbench.config.benchmark import OTHER_ENGINES, BenchmarkConfig
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines import start
from whisperbench.engines.hardware import engine_version
from whisperbench.engines.settings import engine_settings
from whisperbench.measure.score import score
from whisperbench.measure.timing import result_of

MODULES = {"faster-whisper": "faster_whisper", "transformers": "transformers", "openai-whisper": "whisper"}


@pytest.mark.parametrize("engine", OTHER_ENGINES)
def test_another_engine_recognises_speech(
    engine: str, checkpoint: Checkpoint, demo: list[Utterance], tmp_path: Path
) -> None:
    """A WER below 6 % on the demo clips; with random weights, as many tokens as are asked for."""
    if importlib.util.find_spec(MODULES[engine]) is None:
        pytest.skip(f"{engine} is not installed. Install it: make install EXTRAS=other-engines")
    config = BenchmarkConfig(engine=engine, model="demo", corpus="demo")
    started = start.start_engine(engine_settings(config, checkpoint, NO_GPU), NO_GPU, tmp_path / "engine.log")
    by_id = {utterance.utt_id: utterance for utterance in demo}
    found = [result_of(by_id[text.utt_id], text, 0, 0.0) for text in started.transcribe(demo)]
    assert started.info.engine_version == engine_version(engine)
    wer = score(found, "en").wer
    assert wer is not None
    assert wer < 6
    if engine == "faster-whisper":  # it does not take random weights
        return
    random = BenchmarkConfig(engine=engine, model="tiny.en", load_format="dummy")
    shape = resolve_model("tiny.en", "main", cache_dir=tmp_path, random_weights=True)
    started = start.start_engine(engine_settings(random, shape, NO_GPU), NO_GPU, tmp_path / "random.log")
    forced = [dataclasses.replace(utterance, forced_tokens=7) for utterance in demo[:3]]
    assert [text.tokens for text in started.transcribe(forced)] == [7, 7, 7]
