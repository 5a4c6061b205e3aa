"""A checkpoint that is already quantised (compressed-tensors, W8A8), through the real engine and thinned padding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.checkpoints import quantised_to_int8
from whisperbench.checkpoint.checkpoint import Checkpoint, resolve_model
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Engine
from whisperbench.measure.score import score
from whisperbench.measure.timing import result_of


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    cache = tmp_path_factory.mktemp("cache")
    original = resolve_model("demo", "main", cache_dir=cache, random_weights=False)
    quantised = quantised_to_int8(Path(original.path), tmp_path_factory.mktemp("int8") / "tiny.en")
    return resolve_model(str(quantised), "main", cache_dir=cache, random_weights=False)


def test_quantised_weights_are_loaded_as_they_are(started: Callable[..., Engine], demo: list[Utterance]) -> None:
    """The WER of the demo clips is as low as with the original weights."""
    engine = started(padding_stride=16, mel_device="gpu")
    assert engine.llm.llm_engine.vllm_config.model_config.quantization == "compressed-tensors"  # type: ignore[attr-defined]
    texts = {text.utt_id: text for text in engine.transcribe(demo)}
    wer = score([result_of(utterance, texts[utterance.utt_id], 0, 0.0) for utterance in demo], "en").wer
    assert wer is not None
    assert wer < 6
