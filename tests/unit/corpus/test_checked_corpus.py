"""The corpus of a run: checked, and as the utterances that its engine is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.audio import corpus_of
from tests.support.corpora import put
from whisperbench.benchmark import checked_corpus, utterances_of
from whisperbench.checkpoint.checkpoint import Checkpoint
from whisperbench.config.benchmark import BenchmarkConfig
from whisperbench.errors import CorpusError
from whisperbench.progress import Listener


def test_lengths_and_digest_are_known(tmp_path: Path) -> None:
    """Of every utterance, in the order of their ids."""
    corpus = checked_corpus(BenchmarkConfig(corpus="demo", limit=3), Listener(), tmp_path)
    assert [each.seconds for each in corpus.utterances] == [1.975, 2.735, 2.59]
    assert len(corpus.digest) == 32


def test_random_weights_have_as_many_tokens_as_the_reference(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """In every copy; with real weights the model decides."""
    config = BenchmarkConfig(corpus="demo", model="tiny.en", load_format="dummy", limit=1, corpus_copies=2)
    corpus = checked_corpus(config, Listener(), tmp_path)
    count = checkpoint.count_tokens("EXPERIENCE PROVES THIS")
    assert count > 0
    assert [each.forced_tokens for each in utterances_of(config, corpus, checkpoint)] == [count, count]
    real = BenchmarkConfig(corpus="demo", limit=1)
    assert [each.forced_tokens for each in utterances_of(real, corpus, checkpoint)] == [None]


def test_silent_utterances_are_a_warning(tmp_path: Path) -> None:
    """With their number and the first of them."""
    warnings: list[str] = []

    class Warned(Listener):
        def warning(self, text: str) -> None:
            warnings.append(text)

    put(tmp_path / "c", "a.wav", "b.wav")
    soundfile.write(tmp_path / "c" / "b.wav", np.zeros(9, np.int16), 16_000)
    corpus = checked_corpus(BenchmarkConfig(corpus=str(tmp_path / "c")), Warned(), tmp_path / "cache")
    assert corpus.silent == ("b",)
    assert "1 of 2 utterances are silent, the first is b:" in warnings[-1]


def test_a_corpus_of_long_audio_alone_cannot_be_dropped(tmp_path: Path) -> None:
    """Nothing would be left to transcribe."""
    (tmp_path / "c").mkdir()
    corpus_of(tmp_path / "c", [31.0])
    config = BenchmarkConfig(corpus=str(tmp_path / "c"), long_audio="drop")
    with pytest.raises(CorpusError, match="long_audio=drop removes every utterance"):
        checked_corpus(config, Listener(), tmp_path / "cache")
