"""The packed encoder and the weighted attentions against plain ones, window by window; no engine is started.

Marked `gpu`: the same on a GPU, with vLLM's FlashAttention; `-s` shows the figures.
"""

from __future__ import annotations

import collections
import types
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.support.cross_attention import (
    DENSE,
    HEADS,
    SECONDS,
    SIZE,
    STRIDE,
    TOKENS,
    Sequences,
    dense_of_seconds,
    places_of_keys,
    relative,
)
from whisperbench.corpus.audio import SAMPLE_RATE, Samples
from whisperbench.engines.padding import cache_slots, frames_of, log_weight, sparse_positions
from whisperbench.engines.vllm.features import FRAMES_BETWEEN, HOP, log_mel, packed_log_mel, packed_window

HAS_GPU = torch.cuda.is_available()
ON_A_GPU = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="no GPU")]
DEVICES = ["cpu", pytest.param("cuda", marks=ON_A_GPU)]
MEL_BINS = 80


def speech(seconds: float) -> Samples:
    """Noise that swells like speech, in 16-bit samples."""
    times = np.arange(round(seconds * SAMPLE_RATE))
    noise = np.random.default_rng(7).standard_normal(times.size) * 0.1 * np.sin(times / 3_000) ** 2
    return (np.rint(noise * 32_768) / 32_768).astype(np.float32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mel_bins", [80, 128])
def test_features_of_the_engine_are_those_of_the_readers(device: str, mel_bins: int) -> None:
    """In float32 within 1e-4 (values go from -1 to 2); in bfloat16 fewer than 1 of 1,000 values differ."""
    windows = [packed_window(speech(s), frames_of(dense_of_seconds(s))) for s in SECONDS]
    rows = packed_log_mel([torch.from_numpy(window) for window in windows], mel_bins, torch.device(device)).cpu()
    differing = total = row = 0
    largest = 0.0
    for seconds, window in zip(SECONDS, windows, strict=True):
        frames = window.size // HOP - FRAMES_BETWEEN
        ours, exact = rows[row : row + frames].T, torch.from_numpy(log_mel(speech(seconds), mel_bins)[:, :frames])
        largest = max(largest, float((ours - exact).abs().max()))
        differing += int((ours.bfloat16() != exact.bfloat16()).sum())
        total += exact.numel()
        row += frames + FRAMES_BETWEEN
    print(f"\nfeatures on {device}: {differing} of {total} bfloat16 values differ, by at most {largest:.1e} in float32")
    assert row == len(rows)
    assert largest < 1e-4
    assert differing < total / 1_000


def whisper_encoder(layers: int, device: str, dtype: torch.dtype) -> Any:
    """Random weights in the shape of vLLM's `WhisperEncoder`."""
    torch.manual_seed(3)
    width = HEADS * SIZE

    class Linear(nn.Linear):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x), None

    def layer() -> nn.Module:
        block = nn.Module()
        block.self_attn = nn.Module()
        block.self_attn.qkv_proj, block.self_attn.out_proj = Linear(width, 3 * width), Linear(width, width)
        block.self_attn.num_heads, block.self_attn.head_dim = HEADS, SIZE  # type: ignore[assignment]
        block.self_attn_layer_norm, block.final_layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        fc1, fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        block.mlp = nn.Sequential(collections.OrderedDict(fc1=fc1, gelu=nn.GELU(), fc2=fc2))
        return block

    encoder = nn.Module()
    encoder.conv1 = nn.Conv1d(MEL_BINS, width, 3, padding=1)
    encoder.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
    encoder.embed_positions = nn.Embedding(1500, width)
    encoder.layers = nn.ModuleList(layer() for _ in range(layers))
    encoder.layer_norm = nn.LayerNorm(width)
    encoder.num_mel_bins = MEL_BINS  # type: ignore[assignment]
    for block in encoder.layers:
        block.self_attn.qkv_proj.weight.data *= 4  # so that attention chooses, and weights matter
    return encoder.to(device, dtype).eval()


def encoded_alone(encoder: Any, features: torch.Tensor, dense: int, stride: int, weight: float) -> torch.Tensor:
    """The whole window convolved, its kept positions through the layers with the weights as a mask."""
    x = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(features)))).T + encoder.embed_positions.weight
    x = x[[*range(dense), *sparse_positions(dense, stride)]]
    mask = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    mask[dense:] = weight
    for layer in encoder.layers:
        qkv = layer.self_attn.qkv_proj(layer.self_attn_layer_norm(x))[0]
        query, key, value = qkv.view(-1, 3, HEADS, SIZE).permute(1, 2, 0, 3)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask.expand(len(x), -1))
        x = x + layer.self_attn.out_proj(mixed.transpose(0, 1).flatten(1))[0]
        x = x + layer.mlp(layer.final_layer_norm(x))
    found: torch.Tensor = encoder.layer_norm(x)
    return found


@torch.inference_mode()
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stride", [1, STRIDE])
@pytest.mark.parametrize("given", ["samples", "features"])
def test_a_packed_window_is_encoded_as_it_is_alone(device: str, stride: int, given: str) -> None:
    """Convolutions end where a window ends, silence is one vector, and the sparse keys weigh what they should."""
    from whisperbench.engines.vllm.model import PackedWhisper

    exact = whisper_encoder(1, device, torch.float32)
    dtype, tolerance = (torch.float32, 1e-4) if device == "cpu" else (torch.bfloat16, 0.03)
    model = PackedWhisper.__new__(PackedWhisper)
    nn.Module.__init__(model)
    model.model = types.SimpleNamespace(encoder=whisper_encoder(1, device, dtype))
    model.dtype, model.stride, model.in_fp8 = dtype, stride, False
    dense = [dense_of_seconds(s, stride) for s in SECONDS]
    whole = [torch.from_numpy(log_mel(speech(s), MEL_BINS)).to(device) for s in SECONDS]
    inputs = [
        torch.from_numpy(packed_window(speech(s), frames_of(d))) if given == "samples" else features[:, : frames_of(d)]
        for s, d, features in zip(SECONDS, dense, whole, strict=True)
    ]
    found = model.embed_multimodal(input_features=inputs)
    assert [len(each) for each in found] == [cache_slots(d, stride) for d in dense]
    for ours, d, features in zip(found, dense, whole, strict=True):
        wanted = encoded_alone(exact, features, d, stride, log_weight(stride))
        keys = places_of_keys(d, stride)
        error = relative(ours[keys], wanted)
        print(f"\nencoder on {device}, {given}, stride {stride}, {len(keys)} positions: relative error {error:.1e}")
        assert error < tolerance
        assert ours.norm() == ours[keys].norm()  # nothing in the places that are not used
    if stride > 1:
        unweighted = encoded_alone(exact, whole[1], dense[1], stride, 0.0)
        assert relative(found[1][places_of_keys(dense[1])], unweighted) > 2 * tolerance


@torch.inference_mode()
@pytest.mark.parametrize("stride", [1, STRIDE])
def test_layers_after_the_first_are_in_fp8(stride: int) -> None:
    from whisperbench.engines.vllm.fp8_encoder import FIRST_LAYER, quantise_when_loaded
    from whisperbench.engines.vllm.model import Layout, encode

    encoder = whisper_encoder(3, "cpu", torch.bfloat16)
    frames = [frames_of(dense_of_seconds(s, stride)) for s in SECONDS]
    layout = Layout.of(frames, stride, torch.device("cpu"))
    rows = torch.randn(sum(frames) + FRAMES_BETWEEN * len(frames), MEL_BINS).bfloat16()
    exact = encode(encoder, rows, layout, in_fp8=False)
    first = encoder.layers[0].mlp.fc1.weight
    quantise_when_loaded(encoder.layers[FIRST_LAYER:], weighted_keys=stride > 1)
    for layer in encoder.layers[FIRST_LAYER:]:
        for linear in (layer.self_attn.qkv_proj, layer.self_attn.out_proj, layer.mlp.fc1, layer.mlp.fc2):
            linear.quant_method.process_weights_after_loading(linear)
    found = encode(encoder, rows, layout, in_fp8=True)
    assert encoder.layers[0].mlp.fc1.weight is first
    assert [layer.mlp.fc1.weight.dtype for layer in encoder.layers[1:]] == [torch.float8_e4m3fn] * 2
    for quantised, before in zip(found, exact, strict=True):
        assert 0 < relative(quantised, before) < 0.3  # the sharp attention of these weights amplifies errors


@torch.inference_mode()
@pytest.mark.parametrize(
    ("form", "device"),
    [("plain", "cpu"), pytest.param("plain", "cuda", marks=ON_A_GPU), pytest.param("merged", "cuda", marks=ON_A_GPU)],
)
def test_the_cross_attention_weights_sparse_keys(form: str, device: str) -> None:
    """A prompt's step, which fills the cache, and one that reads it, full windows included.

    Merged, vLLM's FlashAttention twice, it is within bfloat16's own error.
    """
    from whisperbench.engines.vllm.attention import WeightedCrossAttention

    if form == "merged":
        (implementation, layer), dtype, tolerance, changed = flash_layer(), torch.bfloat16, 0.01, 0.02
    else:
        implementation = types.SimpleNamespace(head_size=SIZE, scale=SIZE**-0.5, kv_cache_dtype="auto")
        layer, dtype, tolerance, changed = None, torch.float32, 1e-4, 0.01
    sequences = Sequences(DENSE, TOKENS, device, dtype)
    attention = WeightedCrossAttention(implementation, STRIDE, torch.device(device))
    for stored in (False, True):
        found = sequences.step(attention, layer, stored=stored)
        error = relative(found, sequences.wanted(log_weight(STRIDE)))
        print(f"\n{form} cross-attention on {device}: relative error {error:.1e}")
        assert error < tolerance
        assert relative(found, sequences.wanted(0.0)) > changed


def flash_layer() -> tuple[Any, Any]:
    """vLLM's FlashAttention implementation of a cross-attention, and what it asks of its layer."""
    from vllm.v1.attention.backend import AttentionType
    from vllm.v1.attention.backends.flash_attn import FlashAttentionImpl

    implementation = FlashAttentionImpl(
        HEADS, SIZE, SIZE**-0.5, HEADS, None, None, "auto", attn_type=AttentionType.ENCODER_DECODER
    )
    one = torch.ones(1, device="cuda")
    return implementation, types.SimpleNamespace(_q_scale=one, _k_scale=one, _v_scale=one)


@torch.inference_mode()
@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="no GPU")
def test_the_merged_cross_attention_can_be_replayed() -> None:
    """A CUDA graph that was captured with full windows gives what later windows, and an empty place, should have."""
    from whisperbench.engines.vllm.attention import WeightedCrossAttention

    implementation, layer = flash_layer()
    sequences = Sequences(DENSE, [1] * len(DENSE), "cuda", torch.bfloat16)
    attention = WeightedCrossAttention(implementation, STRIDE, torch.device("cuda"))
    sequences.step(attention, layer, stored=False)
    lengths = sequences.metadata["seq_lens"]
    known = lengths.clone()
    lengths.fill_(1500)
    sequences.metadata["max_seq_len"] = 1500
    sequences.step(attention, layer, stored=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = sequences.step(attention, layer, stored=True)
    lengths.copy_(known)
    lengths[-1] = 0  # a place of the graph without a sequence
    graph.replay()
    wanted = sequences.wanted(log_weight(STRIDE))
    assert relative(output[:-1], wanted[:-1]) < 0.01
