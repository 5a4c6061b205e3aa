"""Whisper's two attentions over windows of different lengths, in which each sparse key has the weight k.

In the encoder the weight is part of the keys.  They have two more dimensions, which hold log k (rounded to the model's
type, and the remainder), and in which every query holds the inverse of the scale.  In the cross-attention these
dimensions would enlarge the KV cache, so attention over the dense and over the sparse keys is computed separately and
merged by log-sum-exp.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch.nn import functional
from vllm.model_executor.layers.attention import CrossAttention

from whisperbench.constants import WINDOW_POSITIONS
from whisperbench.engines.padding import CACHE_BLOCK, dense_by_slots, log_weight, sparse_positions
from whisperbench.engines.vllm.features import to_device_async

MERGED = True
"""False selects the plain form of cross-attention on every device, which is slower and needs no FlashAttention."""

EXTRA_DIMENSIONS = 8  # FlashAttention takes heads in multiples of this
PARTS = "whisperbench_parts"  # attribute of a step's metadata: computed by the first layer, used by all


class EncoderAttention:
    """Attention within each window of one packed batch.

    Args:
        heads, size: number and size of the attention heads.
        lengths: number of positions of each window.
        log_weights: float32 of shape (positions,), added to the logits of each key; None adds nothing.
        like: the hidden states, for their type and device.
    """

    def __init__(
        self, heads: int, size: int, lengths: list[int], log_weights: torch.Tensor | None, like: torch.Tensor
    ) -> None:
        self._heads, self._size, self._lengths, self._log_weights = heads, size, lengths, log_weights
        self._flash = flash_attention() if like.is_cuda else None
        if self._flash is None:
            return
        ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        self._ends = to_device_async([ends], like.device)
        self._padded: torch.Tensor | None = None
        self._weights: torch.Tensor | None = None
        if log_weights is not None:
            leading = log_weights.to(like.dtype)
            self._weights = torch.stack([leading, (log_weights - leading.float()).to(like.dtype)], dim=1)[:, None]

    def __call__(self, qkv: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values of shape (positions, 3 * heads * size) to (positions, heads, size).

        Heads may already have EXTRA_DIMENSIONS further dimensions, with `extra_query` in queries and zeros elsewhere.
        """
        qkv = qkv.view(len(qkv), 3, self._heads, -1)
        if self._flash is None:
            return self._window_by_window(qkv[..., : self._size])
        if self._weights is not None:
            qkv = self._weighted(qkv, self._weights)
        query, key, value = qkv.unbind(1)
        longest = max(self._lengths)
        mixed: torch.Tensor = self._flash(
            q=query,
            k=key,
            v=value,
            cu_seqlens_q=self._ends,
            cu_seqlens_k=self._ends,
            max_seqlen_q=longest,
            max_seqlen_k=longest,
            softmax_scale=self._size**-0.5,
        )
        return mixed[..., : self._size]

    def _weighted(self, qkv: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values of shape (positions, 3, heads, size + EXTRA_DIMENSIONS)."""
        if qkv.shape[-1] > self._size:
            qkv[:, 1, :, self._size : self._size + 2] = weights
            return qkv
        if self._padded is None:
            self._padded = qkv.new_zeros(*qkv.shape[:-1], self._size + EXTRA_DIMENSIONS)
            self._padded[:, 0, :, self._size :] = extra_query(self._size)
            self._padded[:, 1, :, self._size : self._size + 2] = weights
        self._padded[..., : self._size] = qkv
        return self._padded

    def _window_by_window(self, qkv: torch.Tensor) -> torch.Tensor:
        weights = (
            [None] * len(self._lengths)
            if self._log_weights is None
            else self._log_weights.split_with_sizes(self._lengths)
        )
        mixed = []
        for window, weight in zip(qkv.split_with_sizes(self._lengths), weights, strict=True):
            query, key, value = window.permute(1, 2, 0, 3).unsqueeze(1)
            mask = None if weight is None else weight.to(qkv.dtype).expand(1, 1, len(weight), -1)
            mixed.append(functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)[0].transpose(0, 1))
        return torch.cat(mixed)


def extra_query(size: int) -> float:
    """The value of queries in the dimensions in which keys have weights: the inverse of the attention's scale."""
    return math.sqrt(size)


@functools.cache
def flash_attention() -> Any:
    """vLLM's FlashAttention for packed sequences, in the version for this GPU; None if the device has none."""
    from vllm.platforms import current_platform
    from vllm.v1.attention.backends import fa_utils

    if not (fa_utils.is_flash_attn_varlen_func_available() and current_platform.has_device_capability(80)):
        return None
    version = fa_utils.get_flash_attn_version()
    return functools.partial(fa_utils.flash_attn_varlen_func, **({} if version is None else {"fa_version": version}))


def weight_sparse_keys(attention: CrossAttention, stride: int) -> None:
    """Make a cross-attention layer of vLLM weight the sparse keys of each window."""
    attention.impl.forward = WeightedCrossAttention(attention.impl, stride, attention._k_scale.device)


class WeightedCrossAttention:
    """Replaces `forward` of vLLM's attention; the number of a window's slots determines which keys are sparse.

    Args:
        implementation: vLLM's implementation of the layer, with its scale, kernel version and cache layout.
    """

    def __init__(self, implementation: Any, stride: int, device: torch.device) -> None:
        self._vllm, self._stride, self._log_weight = implementation, stride, log_weight(stride)
        self._dense_by_slots = torch.tensor(dense_by_slots(stride), dtype=torch.int32, device=device)
        self._max_sparse = len(sparse_positions(0, stride))
        self._is_merged = MERGED and hasattr(implementation, "vllm_flash_attn_version")

    def __call__(
        self,
        layer: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor | None,
        value: torch.Tensor | None,
        kv_cache: torch.Tensor,
        attn_metadata: Any,
        output: torch.Tensor,
        *_no_fused_quantization: torch.Tensor | None,
        **_no_fused_quantization_either: torch.Tensor | None,
    ) -> torch.Tensor:
        """Store new keys in the KV cache, then attend to it with queries of shape (tokens, heads, size).

        `kv_cache` has the shape (blocks, heads, block_size, 2 * size).
        """
        if attn_metadata is None:  # vLLM profiles memory
            return output.fill_(0)
        if self._is_merged:
            self.merged(layer, query, key, value, kv_cache, attn_metadata, output)
        else:
            self.plain(query, key, value, kv_cache, attn_metadata, output)
        return output

    def merged(
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor | None,
        value: torch.Tensor | None,
        kv_cache: torch.Tensor,
        metadata: Any,
        output: torch.Tensor,
    ) -> None:
        """FlashAttention over the dense keys, then over the sparse keys, and a merge of both."""
        from vllm.platforms import current_platform
        from vllm.v1.attention.backends.fa_utils import flash_attn_varlen_func
        from vllm.v1.attention.ops.merge_attn_states import merge_attn_states

        vllm, tokens = self._vllm, metadata.num_actual_tokens
        if key is not None:
            vllm.do_kv_cache_update(layer, key, value, kv_cache, metadata.slot_mapping)
        keys, values = kv_cache.transpose(1, 2).chunk(2, dim=-1)
        if vllm.kv_cache_dtype.startswith("fp8"):
            keys, values = (part.view(current_platform.fp8_dtype()) for part in (keys, values))
        if (parts := getattr(metadata, PARTS, None)) is None:
            parts = self._parts(metadata, block_size=kv_cache.shape[2])
            setattr(metadata, PARTS, parts)
        descale = (metadata.query_start_loc.shape[0] - 1, vllm.num_kv_heads)
        attend = functools.partial(
            flash_attn_varlen_func,
            q=query[:tokens],
            k=keys,
            v=values,
            cu_seqlens_q=metadata.query_start_loc,
            max_seqlen_q=metadata.max_query_len,
            softmax_scale=vllm.scale,
            causal=False,
            return_softmax_lse=True,
            fa_version=vllm.vllm_flash_attn_version,
            q_descale=layer._q_scale.expand(descale) if vllm.supports_quant_query_input else None,
            k_descale=layer._k_scale.expand(descale),
            v_descale=layer._v_scale.expand(descale),
            num_splits=1,  # many sequences are parallel enough, and CUDA graphs give equal results
        )
        dense_keys, sparse_keys, sparse_blocks = parts
        dense, dense_sum = attend(
            seqused_k=dense_keys, max_seqlen_k=metadata.max_seq_len, block_table=metadata.block_table
        )
        sparse, sparse_sum = attend(seqused_k=sparse_keys, max_seqlen_k=self._max_sparse, block_table=sparse_blocks)
        merge_attn_states(output[:tokens], dense, dense_sum, sparse, sparse_sum + self._log_weight)

    def _parts(self, metadata: Any, block_size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Numbers of dense and sparse keys of each sequence, and the blocks that hold the sparse keys."""
        if CACHE_BLOCK % block_size:
            raise ValueError(f"blocks of the KV cache have {block_size} keys, which does not divide {CACHE_BLOCK}")
        table = metadata.block_table
        dense, sparse, first_sparse = self._keys(metadata.seq_lens)
        columns = torch.arange(-(-self._max_sparse // block_size), device=table.device)
        columns = (first_sparse // block_size)[:, None] + columns
        return dense, sparse, table.gather(1, columns.clamp_(max=table.shape[1] - 1).long())

    def _keys(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """For windows with `slots` slots: the numbers of dense and sparse keys, and the first sparse slot."""
        dense = self._dense_by_slots[slots]
        sparse = torch.where(dense > 0, (WINDOW_POSITIONS - dense + self._stride - 1) // self._stride, 0)
        return dense, sparse, (dense + CACHE_BLOCK - 1) // CACHE_BLOCK * CACHE_BLOCK

    def plain(
        self,
        query: torch.Tensor,
        key: torch.Tensor | None,
        value: torch.Tensor | None,
        kv_cache: torch.Tensor,
        metadata: Any,
        output: torch.Tensor,
    ) -> None:
        """torch's attention over keys and values copied from the cache, with the weights as its mask."""
        vllm, tokens, block_size = self._vllm, metadata.num_actual_tokens, kv_cache.shape[2]
        if vllm.kv_cache_dtype.startswith("fp8") or kv_cache.shape[1::2] != (query.shape[1], 2 * vllm.head_size):
            raise ValueError(
                f"Thinned padding without FlashAttention needs a KV cache of shape (blocks, {query.shape[1]}, "
                f"block_size, {2 * vllm.head_size}) in the model's type, "
                f"not {tuple(kv_cache.shape)} in {vllm.kv_cache_dtype}"
            )
        if key is not None and value is not None:
            slots = metadata.slot_mapping
            kv_cache[slots // block_size, :, slots % block_size] = torch.cat([key, value], dim=-1)
        slot = torch.arange(metadata.max_seq_len, device=query.device)
        sequence = torch.searchsorted(
            metadata.query_start_loc[1:], torch.arange(tokens, dtype=torch.int32, device=query.device), right=True
        ).clamp_(max=len(metadata.seq_lens) - 1)
        dense, sparse, first_sparse = (of[sequence][:, None] for of in self._keys(metadata.seq_lens))
        weights = torch.full((tokens, len(slot)), -torch.inf, device=query.device)
        weights.masked_fill_((slot >= first_sparse) & (slot < first_sparse + sparse), self._log_weight)
        weights = weights.masked_fill_(slot < dense, 0.0).to(query.dtype)
        blocks = metadata.block_table[:, slot // block_size][sequence]
        keys, values = kv_cache[blocks, :, slot % block_size].transpose(1, 2).chunk(2, dim=-1)
        mixed = functional.scaled_dot_product_attention(
            query[:tokens, :, None], keys, values, attn_mask=weights[:, None, None], scale=vllm.scale
        )
        output[:tokens].copy_(mixed.reshape(output[:tokens].shape))
