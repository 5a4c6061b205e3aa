"""The merged cross-attention by its arithmetic, on a CPU, with keys in the model's type and in fp8.

What vLLM computes on a GPU is written out here in float32: its FlashAttention over a paged cache, its merge of two
results, and its store of keys.  That the real ones give the same, `test_vllm_model` shows on a GPU.
"""

from __future__ import annotations

import itertools
import math
import types
from typing import Any

import pytest
import torch

from tests.support.cross_attention import BLOCK, DENSE, HEADS, SIZE, STRIDE, TOKENS, Sequences, relative
from whisperbench.engines.padding import log_weight

FP8 = torch.float8_e4m3fn
Q_SCALE, K_SCALE, V_SCALE = 0.25, 0.5, 2.0


def flash_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, cu_seqlens_q: torch.Tensor, seqused_k: torch.Tensor,
    max_seqlen_k: int, block_table: torch.Tensor, softmax_scale: float, causal: bool, q_descale: torch.Tensor | None,
    k_descale: torch.Tensor, v_descale: torch.Tensor, **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Its output and log-sum-exp; k and v have the shape (blocks, block, heads, size)."""
    assert not causal
    assert (q.dtype == FP8) == (k.dtype == FP8) == (v.dtype == FP8)
    mixed, sums = [], []
    for row, (start, end) in enumerate(itertools.pairwise(cu_seqlens_q.tolist())):
        places = torch.arange(int(seqused_k[row]))
        assert len(places) <= max_seqlen_k
        at = block_table[row, places // BLOCK].long(), places % BLOCK
        query = q[start:end].float() * (1.0 if q_descale is None else q_descale[row][:, None])
        keys, values = k.float()[at] * k_descale[row][:, None], v.float()[at] * v_descale[row][:, None]
        logits = torch.einsum("qhd,khd->hqk", query, keys) * softmax_scale
        sums.append(logits.logsumexp(-1))
        mixed.append(torch.einsum("hqk,khd->qhd", logits.softmax(-1), values))
    return torch.cat(mixed), torch.cat(sums, dim=1)


def merge(output: torch.Tensor, a: torch.Tensor, a_sums: torch.Tensor, b: torch.Tensor, b_sums: torch.Tensor) -> None:
    """Two results over different keys as one over all of them."""
    both = torch.logaddexp(a_sums, b_sums)
    output.copy_(a * (a_sums - both).exp().T[..., None] + b * (b_sums - both).exp().T[..., None])


class Implementation:
    """What the attention asks of vLLM's: scales divide what is stored, and a cache in fp8 is bytes."""

    vllm_flash_attn_version = 3
    num_kv_heads, scale = HEADS, SIZE**-0.5

    def __init__(self, kv_cache_dtype: str) -> None:
        self.kv_cache_dtype = kv_cache_dtype
        self.supports_quant_query_input = kv_cache_dtype == "fp8"

    def do_kv_cache_update(
        self, layer: Any, key: torch.Tensor, value: torch.Tensor, kv_cache: torch.Tensor, slots: torch.Tensor
    ) -> None:
        new = torch.cat([key / layer._k_scale, value / layer._v_scale], dim=-1)
        if self.kv_cache_dtype == "fp8":
            new = new.to(FP8).view(torch.uint8)
        kv_cache[slots // BLOCK, :, slots % BLOCK] = new


@torch.inference_mode()
@pytest.mark.parametrize("kv_cache_dtype", ["auto", "fp8"])
def test_dense_and_sparse_keys_are_attended_apart_and_merged(
    kv_cache_dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one softmax over the keys of each window, sparse ones with their weight; of fp8, over what fp8 holds."""
    from vllm.v1.attention.backends import fa_utils
    from vllm.v1.attention.ops import merge_attn_states as merging

    from whisperbench.engines.vllm.attention import WeightedCrossAttention

    monkeypatch.setattr(fa_utils, "flash_attn_varlen_func", flash_attention, raising=False)
    monkeypatch.setattr(merging, "merge_attn_states", merge)
    sequences = Sequences(DENSE, TOKENS, "cpu", torch.float32)
    scales = (1.0, 1.0, 1.0)
    query = sequences.query
    cache = sequences.cache
    if kv_cache_dtype == "fp8":
        scales = (Q_SCALE, K_SCALE, V_SCALE)
        query = (query / Q_SCALE).to(FP8)  # vLLM's layer does it before it calls
        cache = torch.zeros(cache.transpose(1, 2).shape, dtype=torch.uint8).transpose(1, 2)
    layer = types.SimpleNamespace(
        **{
            name: torch.full((1,), value)
            for name, value in zip(("_q_scale", "_k_scale", "_v_scale"), scales, strict=True)
        }
    )
    attention = WeightedCrossAttention(Implementation(kv_cache_dtype), STRIDE, torch.device("cpu"))
    found = {}
    for stored in (False, True):
        found[stored] = torch.full_like(sequences.query, math.nan)
        new = (None, None) if stored else (sequences.keys, sequences.values)
        attention(layer, query, *new, cache, types.SimpleNamespace(**sequences.metadata), output=found[stored])
    assert torch.equal(found[False], found[True])
    if kv_cache_dtype == "fp8":
        coarse = relative(found[True], sequences.wanted(log_weight(STRIDE)))
        assert 1e-3 < coarse < 0.2
        sequences.query = query.float() * Q_SCALE
        sequences.keys = (sequences.keys / K_SCALE).to(FP8).float() * K_SCALE
        sequences.values = (sequences.values / V_SCALE).to(FP8).float() * V_SCALE
    assert relative(found[True], sequences.wanted(log_weight(STRIDE))) < 1e-5
    assert relative(found[True], sequences.wanted(0.0)) > 1e-2


def test_keys_that_begin_in_the_middle_of_a_block_are_refused() -> None:
    """Larger blocks than the layout was made for would mix dense and sparse keys."""
    from whisperbench.engines.vllm.attention import WeightedCrossAttention

    attention = WeightedCrossAttention(Implementation("auto"), STRIDE, torch.device("cpu"))
    with pytest.raises(ValueError, match="blocks of the KV cache have 32 keys"):
        attention._parts(types.SimpleNamespace(), block_size=32)
