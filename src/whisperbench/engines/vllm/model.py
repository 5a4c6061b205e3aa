"""vLLM's Whisper model with windows of different lengths in one encoder batch, for thinned padding.

vLLM's own model encodes 1,500 positions of every window.  This model concatenates the kept positions of all windows
(`engines.padding`), computes log-mel features on its device if it is given samples, and weights the sparse keys in both
attentions (`engines.vllm.attention`).  Everything else, including the names of the weights, is vLLM's.
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
from whisperbench.engines.vllm.fp8_encoder import FIRST_LAYER, encode_in_fp8, quantise_when_loaded

ARCHITECTURE = "PackedWhisperForConditionalGeneration"


@dataclasses.dataclass(frozen=True)
class Overrides:
    """vLLM's `hf_overrides`, which select this model and hold its options.

    vLLM finds models of other packages through installed plugins, or in the process that registered them.  Unpickling
    this object registers the model, so it is registered in each process that receives the configuration.  The options
    are not stored in the checkpoint's configuration, which is part of the key of vLLM's cache of compiled graphs: these
    contain only the decoder without its attention, and are equal for all options.
    """

    stride: int
    fp8_encoder: bool

    def __post_init__(self) -> None:
        if ARCHITECTURE not in ModelRegistry.get_supported_archs():
            ModelRegistry.register_model(ARCHITECTURE, PackedWhisper)

    def __reduce__(self) -> tuple[type[Overrides], tuple[int, bool]]:
        return Overrides, (self.stride, self.fp8_encoder)

    def __call__(self, config: Any) -> Any:
        """The checkpoint's configuration with this model's architecture."""
        config.update({"architectures": [ARCHITECTURE]})
        return config


@MULTIMODAL_REGISTRY.register_processor(
    WhisperMultiModalProcessor, info=WhisperProcessingInfo, dummy_inputs=WhisperDummyInputsBuilder
)
class PackedWhisper(WhisperForConditionalGeneration):  # type: ignore[misc]  # vLLM has no types
    """vLLM's Whisper with an encoder for packed windows and a cross-attention that weights sparse keys."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.stride: int = vllm_config.model_config.hf_overrides.stride
        self.in_fp8: bool = vllm_config.model_config.hf_overrides.fp8_encoder
        if self.in_fp8:
            quantise_when_loaded(self.model.encoder.layers[FIRST_LAYER:], weighted_keys=self.stride > 1)
        if self.stride > 1:
            for layer in self.model.decoder.layers:
                weight_sparse_keys(layer.encoder_attn.attn, self.stride)

    def embed_multimodal(self, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        """The encoder's output for each window, of shape (slots in the KV cache, d_model).

        `input_features` holds one tensor per window: features of shape (mel_bins, frames), or int16 samples from
        `packed_window` in the host's memory.
        """
        windows, encoder = list(kwargs["input_features"]), self.model.encoder
        if windows[0].dim() == 1:
            frames = [window.numel() // HOP - FRAMES_BETWEEN for window in windows]
            rows = packed_log_mel(windows, encoder.num_mel_bins, encoder.conv1.weight.device).to(self.dtype)
        else:
            frames = [window.shape[1] for window in windows]
            rows = torch.cat([functional.pad(window.T.to(self.dtype), (0, 0, 0, FRAMES_BETWEEN)) for window in windows])
        return encode(encoder, rows, Layout.of(frames, self.stride, rows.device), in_fp8=self.in_fp8)


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """Indices of a batch of windows, as tensors on the encoder's device.

    `between`: rows of frames between windows, which are zeroed before each convolution.
    `convolved`: for every kept position, its row in the convolutions' output.  Sparse positions use the row of the last
    dense position, or at the window's end the row that covers the end.
    `positions`: for every kept position, its index in the window.
    `log_weights`: for every kept position, what is added to its logit as a key; None if nothing is.
    `lengths`: number of kept positions of each window.
    `slots`: for every kept position, its index in the concatenated slots of all windows.
    `sizes`: number of slots of each window.
    """

    between: torch.Tensor
    convolved: torch.Tensor
    positions: torch.Tensor
    log_weights: torch.Tensor | None
    lengths: list[int]
    slots: torch.Tensor
    sizes: list[int]

    @classmethod
    def of(cls, frames: Sequence[int], stride: int, device: torch.device) -> Layout:
        """The layout of windows with `frames[i]` frames each, followed by FRAMES_BETWEEN rows."""
        between: list[int] = []
        convolved: list[np.ndarray[Any, Any]] = []
        positions: list[np.ndarray[Any, Any]] = []
        weights: list[np.ndarray[Any, Any]] = []
        slots: list[np.ndarray[Any, Any]] = []
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
            sparse_begin = begin + (first_sparse_slot(dense) if stride > 1 else dense)
            slots += [np.arange(begin, begin + dense), np.arange(sparse_begin, sparse_begin + sparse.size)]
            lengths.append(kept_positions(dense, stride))
            sizes.append(cache_slots(dense, stride))
            row += count + FRAMES_BETWEEN
            between += range(row - FRAMES_BETWEEN, row)

        def on_device(parts: list[np.ndarray[Any, Any]]) -> torch.Tensor:
            return to_device_async([torch.from_numpy(part) for part in parts], device)

        return cls(
            between=on_device([np.array(between)]),
            convolved=on_device(convolved),
            positions=on_device(positions),
            log_weights=on_device(weights) if stride > 1 else None,
            lengths=lengths,
            slots=on_device(slots),
            sizes=sizes,
        )


def encode(encoder: Any, rows: torch.Tensor, layout: Layout, *, in_fp8: bool) -> tuple[torch.Tensor, ...]:
    """Whisper's encoder over packed windows.

    Args:
        encoder: vLLM's `WhisperEncoder`.
        rows: features of shape (rows, mel_bins), all windows concatenated as described by `layout`.
        in_fp8: the linear layers of the encoder are those of `quantization=fp8-encoder`.

    Returns:
        For each window an array of shape (slots, d_model), with zeros in unused slots.
    """
    x = functional.gelu(convolve(encoder.conv1, rows.index_fill(0, layout.between, 0.0)))
    x = functional.gelu(convolve(encoder.conv2, x.index_fill_(0, layout.between, 0.0)))
    x = x[layout.convolved] + encoder.embed_positions.weight[layout.positions].to(x.dtype)
    attention = encoder.layers[0].self_attn
    attend = EncoderAttention(attention.num_heads, attention.head_dim, layout.lengths, layout.log_weights, x)
    for layer in encoder.layers[:FIRST_LAYER] if in_fp8 else encoder.layers:
        qkv, _ = layer.self_attn.qkv_proj(layer.self_attn_layer_norm(x))
        x = x + layer.self_attn.out_proj(attend(qkv).flatten(1))[0]
        x = x + layer.mlp(layer.final_layer_norm(x))
        if x.dtype == torch.float16:  # as in vLLM; bfloat16 does not overflow
            x = cast_overflow_tensors(x)
    if in_fp8:
        x = encode_in_fp8(encoder.layers[FIRST_LAYER:], x, attend)
    kept = encoder.layer_norm(x)
    return tuple(
        kept.new_zeros(sum(layout.sizes), kept.shape[1]).index_copy_(0, layout.slots, kept).split(layout.sizes)
    )


def convolve(convolution: torch.nn.Conv1d, rows: torch.Tensor) -> torch.Tensor:
    """A convolution of width 3 over rows of shape (n, channels), padded by one row of zeros, as one matrix product."""
    inputs = functional.pad(rows, (0, 0, 1, 1)).unfold(0, 3, convolution.stride[0]).flatten(1)
    return functional.linear(inputs, convolution.weight.flatten(1), convolution.bias)
