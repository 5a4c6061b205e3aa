"""What is checked before a run is created, and the utterances that the engine is given."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.audio import corpus_of
from tests.support.corpora import put
from tests.support.fakes import NO_GPU
from whisperbench.checkpoint.checkpoint import Checkpoint
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.errors import CorpusError
from whisperbench.preparation import checked_corpus, prepare
from whisperbench.progress import Listener


def test_lengths_and_digest_are_known() -> None:
    """Of every utterance, in the order of their ids."""
    corpus = checked_corpus(BenchmarkConfig(corpus="demo", limit=3), Listener())
    assert [each.seconds for each in corpus.utterances] == [1.975, 2.735, 2.59]
    assert len(corpus.digest) == 32


def test_random_weights_have_as_many_tokens_as_the_reference(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Every copy has this number; with real weights the model ends the transcript."""
    real = BenchmarkConfig(model="demo", corpus="demo", limit=1, results_dir=str(tmp_path))
    config = dataclasses.replace(real, model="tiny.en", load_format="dummy", corpus_copies=2)
    count = checkpoint.count_tokens("EXPERIENCE PROVES THIS")
    assert count > 0
    for each, tokens in ((config, [count, count]), (real, [None])):
        utterances = prepare(each, NO_GPU, Listener()).utterances
        assert [utterance.forced_tokens for utterance in utterances] == tokens


def test_silent_utterances_are_a_warning(tmp_path: Path) -> None:
    """With their number and the first of them."""
    warnings: list[str] = []

    class Warned(Listener):
        def warning(self, sentence: str) -> None:
            warnings.append(sentence)

    put(tmp_path / "c", "a.wav", "b.wav")
    soundfile.write(tmp_path / "c" / "b.wav", np.zeros(9, np.int16), 16_000)
    corpus = checked_corpus(BenchmarkConfig(corpus=str(tmp_path / "c")), Warned())
    assert corpus.silent == ("b",)
    assert "1 of 2 utterances are silent, the first is b:" in warnings[-1]


def test_a_corpus_of_long_audio_alone_cannot_be_dropped(tmp_path: Path) -> None:
    """Nothing would be left to transcribe."""
    (tmp_path / "c").mkdir()
    corpus_of(tmp_path / "c", [31.0])
    config = BenchmarkConfig(corpus=str(tmp_path / "c"), long_audio="drop")
    with pytest.raises(CorpusError, match="long_audio=drop removes every utterance"):
        checked_corpus(config, Listener())
