"""Find the matrix products of the encoder whose FP8 form changes the decoder's predictions most.

    python -m benchmarks.fp8_layers MODEL CORPUS --output fp8-layers.json

transformers computes the model in float32, and the products that are examined get quantised inputs and weights, as
`quantization=fp8-encoder` quantises them.  The decoder reads the transcript that the model in float32 writes, and its
predictions are compared token by token:

    KL: mean Kullback-Leibler divergence of the predictions from those of the model in float32, in nats per 1,000 tokens
    changed: tokens per 1,000 whose most probable candidate is another one

Both are much more sensitive than the WER, which moves with few words.  Products: `qkv_proj`, `out_proj`, `fc1`, `fc2`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import torch
from torch.nn import functional

from whisperbench.checkpoint.checkpoint import resolve_model
from whisperbench.corpus.audio import SAMPLE_RATE, load_audio
from whisperbench.corpus.corpus import load_corpus
from whisperbench.engines.vllm.fp8_kernels import quantise
from whisperbench.engines.windows import MAX_OUTPUT_TOKENS
from whisperbench.files import cache_directory

KINDS = {
    "qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out_proj": ("self_attn.out_proj",),
    "fc1": ("fc1",),
    "fc2": ("fc2",),
}
"""Products of an encoder layer in FP8 and their modules in transformers."""
BATCH = 32

Product = tuple[int, str]
"""Index of a layer and a key of KINDS."""


@click.command(help=__doc__)
@click.argument("model")
@click.argument("corpus")
@click.option("--limit", type=int, help="Only the first utterances.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file of the figures.")
@torch.inference_mode()
def main(model: str, corpus: str, limit: int | None, output: Path | None) -> None:
    whisper = Whisper(model)
    utterances = [u for u in load_corpus(corpus, "test-clean", limit).utterances if u.reference]
    with ThreadPoolExecutor() as pool:
        clips = list(pool.map(lambda u: load_audio(u.audio), utterances))
    batches = [whisper.batch(clips[first : first + BATCH]) for first in range(0, len(clips), BATCH)]
    layers = range(len(whisper.encoder.layers))
    every = {(layer, kind) for layer in layers for kind in KINDS}
    cases: dict[str, set[Product]] = {"all": every}
    cases |= {f"all but {kind}": {p for p in every if p[1] != kind} for kind in KINDS}
    cases |= {f"all but layer {layer}": {p for p in every if p[0] != layer} for layer in layers}
    cases |= {f"only layer {layer} {kind}": {(layer, kind)} for layer, kind in sorted(every)}
    rows = {}
    for name, products in cases.items():
        rows[name] = whisper.changes(batches, products)
        click.echo(f"{name:<24}{rows[name]['KL']:10.4f}{rows[name]['changed']:10.3f}")
    if output:
        found = {"model": Path(model).name, "utterances": len(clips), "rows": rows}
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


class Whisper:
    """A model of transformers in float32, on a GPU where one is."""

    def __init__(self, model: str) -> None:
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        checkpoint = resolve_model(model, "main", cache_dir=cache_directory(), random_weights=False)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.prompt = list(checkpoint.prompt_token_ids("en"))
        self.processor = WhisperProcessor.from_pretrained(checkpoint.path)
        self.model = WhisperForConditionalGeneration.from_pretrained(checkpoint.path, dtype=torch.float32)
        self.model.to(self.device).eval()
        self.encoder = self.model.model.encoder
        self.end = self.model.config.eos_token_id

    def batch(self, clips: list[Any]) -> dict[str, torch.Tensor]:
        """Features of clips, their transcripts as input of the decoder, predictions, and which of them count."""
        found = self.processor.feature_extractor(
            clips, sampling_rate=SAMPLE_RATE, return_tensors="pt", device=self.device
        )
        features = found.input_features.to(self.device)
        prompt = torch.tensor([self.prompt] * len(clips), device=self.device)
        self.model.generation_config.suppress_tokens = self.model.generation_config.begin_suppress_tokens = None
        tokens = self.model.generate(
            features, decoder_input_ids=prompt, do_sample=False, max_new_tokens=MAX_OUTPUT_TOKENS
        )
        if tokens[0, : len(self.prompt)].tolist() != self.prompt:
            tokens = torch.cat([prompt, tokens], dim=1)
        inputs = tokens[:, :-1]
        ended = (tokens[:, len(self.prompt) : -1] == self.end).cumsum(1) > 0
        counts = functional.pad(~ended, (1, 0), value=True)  # the predictions of each token and of the end
        return {"features": features, "inputs": inputs, "counts": counts, "exact": self.predict(features, inputs)}

    def predict(self, features: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Log probabilities after the prompt, of shape (windows, tokens, vocabulary)."""
        logits = self.model(input_features=features, decoder_input_ids=inputs).logits
        return logits[:, len(self.prompt) - 1 :].log_softmax(-1)

    def changes(self, batches: list[dict[str, torch.Tensor]], products: set[Product]) -> dict[str, float]:
        """KL and changed tokens with `products` in FP8."""
        divergence, changed, tokens = 0.0, 0, 0
        with self.in_fp8(products):
            for each in batches:
                found, exact, counts = self.predict(each["features"], each["inputs"]), each["exact"], each["counts"]
                divergence += float((exact.exp() * (exact - found)).sum(-1)[counts].sum())
                changed += int((exact.argmax(-1) != found.argmax(-1))[counts].sum())
                tokens += int(counts.sum())
        return {"KL": 1000 * divergence / tokens, "changed": 1000 * changed / tokens, "tokens": tokens}

    @contextlib.contextmanager
    def in_fp8(self, products: set[Product]) -> Iterator[None]:
        """Quantise the inputs of these products, a scale per row, and their weights, a scale per output."""
        kept, hooks = [], []
        for layer, kind in products:
            for name in KINDS[kind]:
                linear = self.encoder.layers[layer].get_submodule(name)
                kept.append((linear, linear.weight.data))
                linear.weight.data = rounded(linear.weight.data)
                hooks.append(linear.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),)))
        try:
            yield
        finally:
            for linear, weight in kept:
                linear.weight.data = weight
            for hook in hooks:
                hook.remove()


def rounded(values: torch.Tensor) -> torch.Tensor:
    """Values after quantisation in E4M3 with a scale per row (the last dimension)."""
    quantised, scales = quantise(values.flatten(0, -2))
    return (quantised.float() * scales).view_as(values)


if __name__ == "__main__":
    main()
