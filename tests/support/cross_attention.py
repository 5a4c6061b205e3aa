"""Decoder tokens, and the keys of windows of different lengths in a paged cache: what a cross-attention is given."""

from __future__ import annotations

import math
import types
from typing import Any

import torch

from whisperbench.corpus.audio import SAMPLE_RATE
from whisperbench.engines.padding import cache_slots, dense_positions, first_sparse_slot, sparse_positions

SECONDS = (0.3, 7.4, 28.5, 30.0)
STRIDE = 16
HEADS, SIZE = 6, 64
BLOCK = 16  # keys in a block of the attention cache


def dense_of_seconds(seconds: float, stride: int = STRIDE) -> int:
    return dense_positions(round(seconds * SAMPLE_RATE), stride)


def places_of_keys(dense: int, stride: int = STRIDE) -> list[int]:
    """Where in a window's places its keys are: the dense ones, then the sparse ones from a block's beginning on."""
    first = first_sparse_slot(dense) if stride > 1 else dense
    return [*range(dense), *range(first, first + len(sparse_positions(dense, stride)))]


def relative(ours: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((ours.float() - wanted.float()).norm() / wanted.float().norm())


class Sequences:
    """Decoder tokens and a paged cache of encoder keys, in random blocks, as vLLM lays them out."""

    def __init__(self, dense: list[int], tokens: list[int], device: str, dtype: torch.dtype) -> None:
        torch.manual_seed(5)
        self.dense, self.tokens = dense, tokens
        self.places = places = [cache_slots(d, STRIDE) for d in dense]
        blocks = [-(-n // BLOCK) for n in places]
        numbers = torch.randperm(sum(blocks)) + 1  # block 0 is nobody's
        table = torch.zeros(len(places), 96, dtype=torch.int32)
        slots = []
        for row, (n, own) in enumerate(zip(places, numbers.split(blocks), strict=True)):
            table[row, : len(own)] = own
            within = torch.arange(n)
            slots.append(own[within // BLOCK] * BLOCK + within % BLOCK)
        self.keys, self.values = (torch.randn(2, sum(places), HEADS, SIZE) * 2).to(device, dtype)
        self.query = torch.randn(sum(tokens), HEADS, SIZE).to(device, dtype)
        starts = torch.tensor([0, *tokens], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        self.metadata = {
            "num_actual_tokens": sum(tokens),
            "max_query_len": max(tokens),
            "max_seq_len": max(places),
            "query_start_loc": starts.to(device),
            "seq_lens": torch.tensor(places, dtype=torch.int32, device=device),
            "block_table": table.to(device),
            "slot_mapping": torch.cat(slots).to(device),
        }
        # Keys and values of a block lie one position behind the other: (blocks, heads, block, 2 * size), seen so.
        cache = torch.zeros(sum(blocks) + 1, BLOCK, HEADS, 2 * SIZE, device=device, dtype=dtype)
        self.cache = cache.transpose(1, 2)

    def step(self, attention: Any, layer: Any, *, stored: bool) -> torch.Tensor:
        """What the layer's attention makes of the tokens; `stored`: the keys are in the cache already."""
        output = torch.empty_like(self.query)
        new = (None, None) if stored else (self.keys, self.values)
        attention(layer, self.query, *new, self.cache, types.SimpleNamespace(**self.metadata), output=output)
        return output

    def wanted(self, weight: float) -> torch.Tensor:
        """Softmax by hand, in float32, one sequence after the other."""
        mixed = []
        keys, values = self.keys.float().split(self.places), self.values.float().split(self.places)
        for query, key, value, dense in zip(
            self.query.float().split(self.tokens), keys, values, self.dense, strict=True
        ):
            used = places_of_keys(dense)
            logits = torch.einsum("qhd,khd->hqk", query, key[used]) / math.sqrt(SIZE)
            logits[..., dense:] += weight
            mixed.append(torch.einsum("hqk,khd->qhd", logits.softmax(-1), value[used]))
        return torch.cat(mixed)


DENSE = [dense_of_seconds(s) for s in SECONDS]
TOKENS = [4, 1, 4, 1]
