"""Whisper as vLLM runs it here: windows of different lengths in one encoder batch, with thinned padding.

vLLM's own model encodes 1,500 positions of every window.  This one packs what is kept of each window end to end
(`engines.padding`), computes log-mel on its device where it is given samples, and weights the sparse keys in both
attentions (`engines.vllm.attention`).  Everything else, the weights' names included, is vLLM's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from vllm.config import VllmConfig
from vllm.model_executor.models.registry import ModelRegistry
from vllm.model_executor.models.utils import cast_overflow_tensors
from vllm.model_executor.models.whisper import (
    WhisperDummyInputsBuilder,
    WhisperForConditionalGeneration,
    WhisperMultiModalProcessor,
    WhisperProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from whisperbench.constants import WINDOW_POSITIONS
from whisperbench.engines.padding import (
    cache_slots,
    dense_of,
    first_sparse_slot,
    kept_positions,
    log_weight,
    sparse_positions,
)
from whisperbench.engines.vllm.attention import EncoderAttention, weight_sparse_keys
from whisperbench.engines.vllm.features import FRAMES_BETWEEN, HOP, packed_log_mel, to_device_async

ARCHITECTURE = "PackedWhisperForConditionalGeneration"


@dataclasses.dataclass(frozen=True)
class Overrides:
    """vLLM's `hf_overrides` that choose this model, which finds the stride here.

    vLLM knows models that are not its own by plugins, which are installed, or in the process that registered them.  So
    whoever unpickles this registers the model: each of the engine's processes, with the configuration that it is given.
    In the checkpoint's configuration the stride would be a part of the name under which vLLM keeps compiled graphs,
    which hold no attention and are the same for every stride.
    """

    padding_stride: int

    def __post_init__(self) -> None:
        if ARCHITECTURE not in ModelRegistry.get_supported_archs():
            ModelRegistry.register_model(ARCHITECTURE, PackedWhisper)

    def __reduce__(self) -> tuple[type[Overrides], tuple[int]]:
        return Overrides, (self.padding_stride,)

    def __call__(self, config: Any) -> Any:
        """The checkpoint's configuration, changed."""
        config.update({"architectures": [ARCHITECTURE]})
        return config


@MULTIMODAL_REGISTRY.register_processor(
    WhisperMultiModalProcessor, info=WhisperProcessingInfo, dummy_inputs=WhisperDummyInputsBuilder
)
class PackedWhisper(WhisperForConditionalGeneration):  # type: ignore[misc]  # vLLM has no types
    """vLLM's Whisper with another encoder pass, and a cross-attention that knows which keys are sparse."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.padding_stride: int = vllm_config.model_config.hf_overrides.padding_stride
        if self.padding_stride > 1:
            for layer in self.model.decoder.layers:
                weight_sparse_keys(layer.encoder_attn.attn, self.padding_stride)

    def embed_multimodal(self, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        """The encoder's output of every window, each of shape (places in the cache, d_model).

        `input_features` holds a window each: features of shape (mel_bins, frames), or int16 samples as
        `packed_window` lays them out, which are still in the host's memory.
        """
        windows, encoder = list(kwargs["input_features"]), self.model.encoder
        if windows[0].dim() == 1:
            frames = [window.numel() // HOP - FRAMES_BETWEEN for window in windows]
            rows = packed_log_mel(windows, encoder.num_mel_bins, encoder.conv1.weight.device).to(self.dtype)
        else:
            frames = [window.shape[1] for window in windows]
            rows = torch.cat([functional.pad(window.T.to(self.dtype), (0, 0, 0, FRAMES_BETWEEN)) for window in windows])
        return encode(encoder, rows, Layout.of(frames, self.padding_stride, rows.device))


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """Where the windows of a batch are, on the encoder's device.

    `between`: the rows of frames between windows, which the convolutions must see as zeros.
    `convolved`, `positions`: for every kept position, the convolutions' output that it takes (for those in the silence
    the last dense one, or, at the window's end, the one that saw the end) and its place in the window.
    `log_weights`: of every kept position as a key; None where none has any.
    `lengths`: kept positions of each window.
    `places`: for every kept position, where the windows' places, one window behind the other, hold it.
    `sizes`: places of each window.
    """

    between: torch.Tensor
    convolved: torch.Tensor
    positions: torch.Tensor
    log_weights: torch.Tensor | None
    lengths: list[int]
    places: torch.Tensor
    sizes: list[int]

    @classmethod
    def of(cls, frames: Sequence[int], stride: int, device: torch.device) -> Layout:
        """The layout of windows with so many frames each, followed by FRAMES_BETWEEN rows."""
        between: list[int] = []
        convolved: list[np.ndarray[Any, Any]] = []
        positions: list[np.ndarray[Any, Any]] = []
        weights: list[np.ndarray[Any, Any]] = []
        places: list[np.ndarray[Any, Any]] = []
        lengths: list[int] = []
        sizes: list[int] = []
        row = 0
        for count in frames:
            dense = dense_of(count)
            sparse = np.array(sparse_positions(dense, stride), dtype=np.int64)
            first = row // 2
            convolved += [
                np.arange(first, first + dense),
                first + dense - (sparse < WINDOW_POSITIONS - 1).astype(np.int64),
            ]
            positions += [np.arange(dense), sparse]
            weights += [np.zeros(dense, np.float32), np.full(sparse.size, log_weight(stride), np.float32)]
            begin = sum(sizes)
            behind = begin + (first_sparse_slot(dense) if stride > 1 else dense)
            places += [np.arange(begin, begin + dense), np.arange(behind, behind + sparse.size)]
            lengths.append(kept_positions(dense, stride))
            sizes.append(cache_slots(dense, stride))
            row += count + FRAMES_BETWEEN
            between += range(row - FRAMES_BETWEEN, row)

        def placed(parts: list[np.ndarray[Any, Any]]) -> torch.Tensor:
            return to_device_async([torch.from_numpy(part) for part in parts], device)

        return cls(
            between=placed([np.array(between)]),
            convolved=placed(convolved),
            positions=placed(positions),
            log_weights=placed(weights) if stride > 1 else None,
            lengths=lengths,
            places=placed(places),
            sizes=sizes,
        )


def encode(encoder: Any, rows: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, ...]:
    """Whisper's encoder over packed windows.

    Args:
        encoder: vLLM's `WhisperEncoder`.
        rows: features of shape (rows, mel_bins), the windows one behind the other as `layout` says.

    Returns:
        For each window its places, shape (places, d_model); the unused ones hold zeros.
    """
    x = functional.gelu(convolve(encoder.conv1, rows.index_fill(0, layout.between, 0.0)))
    x = functional.gelu(convolve(encoder.conv2, x.index_fill_(0, layout.between, 0.0)))
    x = x[layout.convolved] + encoder.embed_positions.weight[layout.positions].to(x.dtype)
    attention = encoder.layers[0].self_attn
    attend = EncoderAttention(attention.num_heads, attention.head_dim, layout.lengths, layout.log_weights, x)
    for layer in encoder.layers:
        qkv, _ = layer.self_attn.qkv_proj(layer.self_attn_layer_norm(x))
        x = x + layer.self_attn.out_proj(attend(qkv))[0]
        x = x + layer.mlp(layer.final_layer_norm(x))
        if x.dtype == torch.float16:  # as vLLM does; in bfloat16 nothing overflows
            x = cast_overflow_tensors(x)
    kept = encoder.layer_norm(x)
    return tuple(
        kept.new_zeros(sum(layout.sizes), kept.shape[1]).index_copy_(0, layout.places, kept).split(layout.sizes)
    )


def convolve(convolution: torch.nn.Conv1d, rows: torch.Tensor) -> torch.Tensor:
    """A convolution of width 3, padded by one row of zeros, over rows of shape (n, channels): as one matrix product."""
    seen = functional.pad(rows, (0, 0, 1, 1)).unfold(0, 3, convolution.stride[0]).flatten(1)
    return functional.linear(seen, convolution.weight.flatten(1), convolution.bias)
