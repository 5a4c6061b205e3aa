"""Whisper's encoder layers with products in FP8, for `quantization=fp8-encoder`.

Weights are quantised when they are loaded, with one scale per output channel, and activations in the kernels between
the products, with one scale per row (`engines.vllm.fp8_kernels`), so no calibration is needed.  Attention and the
decoder compute in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from vllm.model_executor.layers.linear import UnquantizedLinearMethod

from whisperbench.engines.vllm.attention import EXTRA_DIMENSIONS, extra_query

OUTPUTS_MULTIPLE = 16  # the number of outputs of an FP8 product must be a multiple
FIRST_LAYER = 1
"""Index of the first layer in FP8.  Layer 0 of base caused 43 % of the change of the decoder's predictions when all six
layers were in FP8, and the WER stays within 0.2 points of bfloat16 without it (docs/quantisation.md)."""


def quantise_when_loaded(layers: Iterable[Any], *, weighted_keys: bool) -> None:
    """Make vLLM quantise the linear layers of `WhisperEncoderLayer`s after it has loaded their weights.

    Args:
        weighted_keys: keys have weights in EXTRA_DIMENSIONS.  The first product then computes heads with these
            dimensions, where possible; without them every layer would copy its heads to longer ones.
    """
    for layer in layers:
        attention = layer.self_attn
        longer = attention.head_dim + EXTRA_DIMENSIONS
        can_lengthen = 3 * attention.num_heads * longer % OUTPUTS_MULTIPLE == 0
        attention.qkv_proj.quant_method = Fp8Linear(attention.head_dim if weighted_keys and can_lengthen else None)
        for linear in (attention.out_proj, layer.mlp.fc1, layer.mlp.fc2):
            linear.quant_method = Fp8Linear()


class Fp8Linear(UnquantizedLinearMethod):  # type: ignore[misc]  # vLLM has no types
    """vLLM's method of a linear layer that is quantised after loading; `encode_in_fp8` computes its product.

    Args:
        head_size: outputs of each head, to which EXTRA_DIMENSIONS are appended; None appends nothing.
    """

    def __init__(self, head_size: int | None = None) -> None:
        super().__init__()
        self._head_size = head_size

    def process_weights_after_loading(self, layer: Any) -> None:
        """Replace the weight by one in E4M3 of the same shape, and add its scales, of shape (outputs, 1)."""
        from whisperbench.engines.vllm.fp8_kernels import quantise

        weight, bias = layer.weight.data, layer.bias.data
        if size := self._head_size:
            weight, bias = (with_extra_dimensions(values, size) for values in (weight, bias))
            bias[: len(bias) // 3].view(-1, size + EXTRA_DIMENSIONS)[:, size:] = extra_query(size)
        quantised, scales = quantise(weight)
        layer.weight = torch.nn.Parameter(quantised, requires_grad=False)
        layer.bias = torch.nn.Parameter(bias, requires_grad=False)
        layer.weight_scales = torch.nn.Parameter(scales, requires_grad=False)


def with_extra_dimensions(values: torch.Tensor, size: int) -> torch.Tensor:
    """The rows of a weight or bias, with EXTRA_DIMENSIONS rows of zeros after each head of `size` rows."""
    heads = values.view(-1, size, *values.shape[1:])
    zeros = heads.new_zeros(len(heads), EXTRA_DIMENSIONS, *heads.shape[2:])
    return torch.cat([heads, zeros], dim=1).flatten(0, 1)


def encode_in_fp8(
    layers: Iterable[Any], x: torch.Tensor, attend: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """The encoder's layers over packed positions.

    Args:
        layers: vLLM's `WhisperEncoderLayer`s, whose linear layers have the method `Fp8Linear`.
        x: hidden states in bfloat16 of shape (positions, d_model), which are overwritten.
        attend: attention from queries, keys and values of shape (positions, 3 * heads * size) to (positions, heads,
            size).
    """
    from whisperbench.engines.vllm import fp8_kernels as kernels

    update = None
    for layer in layers:
        attention, mlp = layer.self_attn, layer.mlp
        normalised = kernels.add_norm_quantise(x, update, layer.self_attn_layer_norm)
        mixed = attend(product(attention.qkv_proj, *normalised))
        update = product(attention.out_proj, *kernels.quantise_heads(mixed))
        normalised = kernels.add_norm_quantise(x, update, layer.final_layer_norm)
        update = product(mlp.fc2, *kernels.gelu_quantise(product(mlp.fc1, *normalised)))
    return x if update is None else x.add_(update)


def product(linear: Any, quantised: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The output of a linear layer in bfloat16, of shape (rows, outputs), for quantised rows and their scales."""
    return torch._scaled_mm(
        quantised,
        linear.weight.t(),
        scale_a=scales,
        scale_b=linear.weight_scales.t(),
        bias=linear.bias,
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )
