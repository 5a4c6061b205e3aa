"""Every weight of a Whisper in CTranslate2's `model.bin`: its shape, and its names in the Hugging Face layout.

Names and shapes are those of CTranslate2's whisper_spec.py and of transformers' modeling_whisper.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from whisperbench.inputs.architecture import TEXT_POSITIONS, Architecture
from whisperbench.options.rules import WINDOW_POSITIONS


@dataclasses.dataclass(frozen=True, slots=True)
class Weight:
    """One weight of `model.bin`: its shape, and the tensors that it holds stacked along axis 0.

    None in place of a name: that part is a bias which the Hugging Face layout does not have, so it must be zero.
    """

    name: str
    shape: tuple[int, ...]
    tensors: tuple[str | None, ...]


def weights_of(architecture: Architecture) -> Iterator[Weight]:
    """Every weight of `model.bin` and where it goes."""
    a, d = architecture, architecture.d_model
    yield from _affine("encoder/conv1", (d, a.mel_bins, 3), "model.encoder.conv1")
    yield from _affine("encoder/conv2", (d, d, 3), "model.encoder.conv2")
    yield Weight("decoder/embeddings/weight", (a.vocab_size, d), ("model.decoder.embed_tokens.weight",))
    yield Weight("decoder/projection/weight", (a.vocab_size, d), ("proj_out.weight",))
    stacks = (("encoder", a.encoder_layers, WINDOW_POSITIONS), ("decoder", a.decoder_layers, TEXT_POSITIONS))
    for side, layers, positions in stacks:
        names = (f"model.{side}.embed_positions.weight",)
        yield Weight(f"{side}/position_encodings/encodings", (positions, d), names)
        yield from _norm(f"{side}/layer_norm", d, f"model.{side}.layer_norm")
        for index in range(layers):
            yield from _layer(f"{side}/layer_{index}", f"model.{side}.layers.{index}", a, cross=side == "decoder")


def _layer(source: str, target: str, architecture: Architecture, *, cross: bool) -> Iterator[Weight]:
    d, ffn = architecture.d_model, architecture.ffn_dim
    own = f"{target}.self_attn"
    yield from _norm(f"{source}/self_attention/layer_norm", d, f"{own}_layer_norm")
    yield from _affine(f"{source}/self_attention/linear_0", (3 * d, d), *(f"{own}.{x}_proj" for x in "qkv"))
    yield from _affine(f"{source}/self_attention/linear_1", (d, d), f"{own}.out_proj")
    if cross:
        other = f"{target}.encoder_attn"
        yield from _norm(f"{source}/attention/layer_norm", d, f"{other}_layer_norm")
        yield from _affine(f"{source}/attention/linear_0", (d, d), f"{other}.q_proj")
        yield from _affine(f"{source}/attention/linear_1", (2 * d, d), *(f"{other}.{x}_proj" for x in "kv"))
        yield from _affine(f"{source}/attention/linear_2", (d, d), f"{other}.out_proj")
    yield from _norm(f"{source}/ffn/layer_norm", d, f"{target}.final_layer_norm")
    yield from _affine(f"{source}/ffn/linear_0", (ffn, d), f"{target}.fc1")
    yield from _affine(f"{source}/ffn/linear_1", (d, ffn), f"{target}.fc2")


def _affine(source: str, shape: tuple[int, ...], *targets: str) -> Iterator[Weight]:
    """Weight and bias of one linear layer or convolution, or of several stacked; keys have no bias."""
    yield Weight(f"{source}/weight", shape, tuple(f"{target}.weight" for target in targets))
    biases = tuple(None if target.endswith(".k_proj") else f"{target}.bias" for target in targets)
    yield Weight(f"{source}/bias", shape[:1], biases)


def _norm(source: str, width: int, target: str) -> Iterator[Weight]:
    yield Weight(f"{source}/gamma", (width,), (f"{target}.weight",))
    yield Weight(f"{source}/beta", (width,), (f"{target}.bias",))
