"""Whisper's encoder layers with products in FP8, for `quantization=fp8-encoder`.

Weights are quantised when they are loaded, with one scale per output channel, and activations in the kernels between
the products, with one scale per row (`engines.vllm.fp8_kernels`), so no calibration is needed.  Attention and the
decoder compute in bfloat16.

vLLM accepts quantisation methods of other packages, which are registered in each process; importing this module
registers this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization import register_quantization_config
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig

from whisperbench.config.benchmark import FP8_ENCODER
from whisperbench.engines.vllm.attention import EXTRA_DIMENSIONS, extra_query

PREFIX = ".encoder.layers."  # part of vLLM's name of every linear layer that is quantised
OUTPUTS_MULTIPLE = 16  # FP8 products take numbers of outputs in multiples of this


@register_quantization_config(FP8_ENCODER)
class Fp8EncoderConfig(QuantizationConfig):  # type: ignore[misc]  # vLLM has no types
    """vLLM's description of the method: which layers it quantises, and on which hardware."""

    def get_name(self) -> str:
        return FP8_ENCODER

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    @classmethod
    def get_min_capability(cls) -> int:
        return 90

    @staticmethod
    def get_config_filenames() -> list[str]:
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Fp8EncoderConfig:
        raise ValueError(f"{FP8_ENCODER} quantises weights while loading, but the checkpoint is quantised: {config}")

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> Any:
        if not isinstance(layer, LinearBase):
            return None
        return Fp8Linear() if PREFIX in prefix else UnquantizedLinearMethod()


class Fp8Linear(UnquantizedLinearMethod):  # type: ignore[misc]  # vLLM has no types
    """Loads a linear layer as if it were not quantised, then quantises its weight."""

    heads = size = 0

    def lengthen_heads(self, attention: Any) -> None:
        """Make the layer compute queries, keys and values with the extra dimensions in which keys have weights.

        They would otherwise be copied to longer heads in each layer.
        """
        if 3 * attention.num_heads * (attention.head_dim + EXTRA_DIMENSIONS) % OUTPUTS_MULTIPLE == 0:
            self.heads, self.size = attention.num_heads, attention.head_dim

    def process_weights_after_loading(self, layer: Any) -> None:
        """Replace the weight by one in E4M3 of the same shape, and add its scales, of shape (outputs, 1)."""
        from whisperbench.engines.vllm.fp8_kernels import quantise

        weight, bias = layer.weight.data, layer.bias.data
        if self.heads:
            weight, bias = self._lengthened(weight), self._lengthened(bias)
            bias.view(3, self.heads, -1)[0, :, self.size :] = extra_query(self.size)
        quantised, scales = quantise(weight)
        layer.weight = torch.nn.Parameter(quantised, requires_grad=False)
        layer.bias = torch.nn.Parameter(bias, requires_grad=False)
        layer.weight_scales = torch.nn.Parameter(scales, requires_grad=False)

    def _lengthened(self, values: torch.Tensor) -> torch.Tensor:
        """The rows of a weight or bias, and zeros for the extra dimensions of each head."""
        heads = values.view(3 * self.heads, self.size, *values.shape[1:])
        zeros = heads.new_zeros(len(heads), EXTRA_DIMENSIONS, *heads.shape[2:])
        return torch.cat([heads, zeros], dim=1).flatten(0, 1)

    def apply(self, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        raise NotImplementedError("encode_in_fp8 computes the products of these layers")


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
