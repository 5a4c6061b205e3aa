"""Encoder layers in the form of vLLM's: unquantised, and in FP8 after vLLM's loading."""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import nn

from whisperbench.engines.vllm.fp8_encoder import quantise_when_loaded

SHAPES = {"qkv_proj": (1, 3), "out_proj": (1, 1), "fc1": (1, 4), "fc2": (4, 1)}
"""Inputs and outputs of each linear layer, in widths of the encoder."""


def layer_norm(width: int, device: str) -> nn.LayerNorm:
    norm = nn.LayerNorm(width, device=device, dtype=torch.bfloat16)
    nn.init.normal_(norm.weight, 1.0, 0.3)
    nn.init.normal_(norm.bias, 0.0, 0.3)
    return norm


def layer_of(width: int, device: str, dtype: torch.dtype) -> Any:
    """Random linear layers of this type and norms in bfloat16."""
    linear = {name: nn.Linear(a * width, b * width, device=device, dtype=dtype) for name, (a, b) in SHAPES.items()}
    return _nested(linear, layer_norm(width, device), layer_norm(width, device))


def in_fp8(layer: Any, *, weighted_keys: bool) -> Any:
    """The same layer as vLLM loads it from weights in bfloat16."""
    copies = {
        name: types.SimpleNamespace(
            weight=nn.Parameter(each.weight.bfloat16().clone()), bias=nn.Parameter(each.bias.bfloat16().clone())
        )
        for name, each in parts(layer).items()
    }
    quantised = _nested(copies, layer.self_attn_layer_norm, layer.final_layer_norm)
    quantise_when_loaded([quantised], weighted_keys=weighted_keys)
    for each in copies.values():
        each.quant_method.process_weights_after_loading(each)
    return quantised


def parts(layer: Any) -> dict[str, Any]:
    """The linear layers by their names."""
    attention, mlp = layer.self_attn, layer.mlp
    return {"qkv_proj": attention.qkv_proj, "out_proj": attention.out_proj, "fc1": mlp.fc1, "fc2": mlp.fc2}


def _nested(linear: dict[str, Any], first: nn.LayerNorm, second: nn.LayerNorm) -> Any:
    attention = types.SimpleNamespace(
        num_heads=first.normalized_shape[0] // 64, head_dim=64, qkv_proj=linear["qkv_proj"], out_proj=linear["out_proj"]
    )
    mlp = types.SimpleNamespace(fc1=linear["fc1"], fc2=linear["fc2"])
    return types.SimpleNamespace(self_attn=attention, mlp=mlp, self_attn_layer_norm=first, final_layer_norm=second)
