"""Time the kernels of `quantization=fp8-encoder` and one encoder layer of large-v3 on a GPU, beside bfloat16.

    python -m benchmarks.fp8_encoder --output fp8-encoder.json

Times are GPU times of replayed CUDA graphs. The rate and the
WER of whole runs come from a sweep: `whisperbench sweep --grid quantization`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch.nn import functional

from tests.support.encoder_layers import in_fp8, layer_norm, layer_of, parts
from whisperbench.engines.vllm import fp8_kernels as kernels
from whisperbench.engines.vllm.attention import EncoderAttention
from whisperbench.engines.vllm.fp8_encoder import encode_in_fp8, product
from whisperbench.engines.vllm.fp8_kernels import Launch

DEVICE = "cuda"
WIDTH, HEADS, SIZE = 1280, 20, 64  # of large-v3 and large-v3-turbo
WINDOWS = {"32 x 1500": [1500] * 32, "96 x 500": [500] * 96}
STRIDE_WEIGHT = 2.77  # log 16
LAUNCHES = {
    "norm": [Launch(1, 1), Launch(2, 1), Launch(1, 2), Launch(4, 4)],
    "gelu": [Launch(1, 4), Launch(1, 2), Launch(1, 8), Launch(2, 8)],
    "heads": [Launch(1, 1), Launch(2, 1), Launch(1, 2)],
}
Rows = dict[str, float]


@click.command(help=__doc__)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file of the figures.")
@torch.inference_mode()
def main(output: Path | None) -> None:
    torch.manual_seed(0)
    found = {}
    for name, lengths in WINDOWS.items():
        found[name] = {**kernel_rows(sum(lengths)), **layer_rows(lengths)}
        print(f"\n{name} positions of large-v3, {torch.cuda.get_device_name()}, torch {torch.__version__}")
        for row, value in found[name].items():
            print(f"  {row:<58}{value:9.4f}", flush=True)
        if output:
            output.write_text(json.dumps(found, indent=1) + "\n")


def kernel_rows(rows: int) -> Rows:
    """Time of each kernel in each launch."""
    x, update = (torch.randn(rows, WIDTH, device=DEVICE).bfloat16() for _ in range(2))
    hidden = torch.randn(rows, 4 * WIDTH, device=DEVICE).bfloat16() * 2
    heads = torch.randn(rows, HEADS, SIZE, device=DEVICE).bfloat16()
    cases: dict[str, tuple[Callable[..., Any], tuple[Any, ...], int]] = {
        "norm": (kernels.add_norm_quantise, (x, update, layer_norm(WIDTH, DEVICE)), 7 * x.numel()),
        "gelu": (kernels.gelu_quantise, (hidden,), 3 * hidden.numel()),
        "heads": (kernels.quantise_heads, (heads,), 3 * heads.numel()),
    }
    found: Rows = {}
    for name, (kernel, inputs, bytes_moved) in cases.items():
        for launch in LAUNCHES[name]:
            label = f"{name}, {launch.rows} rows and {launch.warps} warps"
            found[f"{label}, ms"] = time = milliseconds(functools.partial(kernel, *inputs, launch))
            found[f"{label}, TB/s"] = bytes_moved / time / 1e9
    return found


def layer_rows(lengths: list[int]) -> Rows:
    """Figures of a layer and of its parts in bfloat16 and FP8, without and with weights of keys."""
    weights = torch.where(torch.arange(sum(lengths), device=DEVICE) % 7 == 6, STRIDE_WEIGHT, 0.0)
    return {**one_layer("all positions", lengths, None), **one_layer("weighted keys", lengths, weights)}


def one_layer(case: str, lengths: list[int], log_weights: torch.Tensor | None) -> Rows:
    x = torch.randn(sum(lengths), WIDTH, device=DEVICE).bfloat16()
    plain = layer_of(WIDTH, DEVICE, torch.bfloat16)
    quantised = in_fp8(plain, weighted_keys=log_weights is not None)
    attend = EncoderAttention(HEADS, SIZE, lengths, log_weights, x)
    exact = (in_bfloat16(plain, x, attend) - x).float()
    error = (encode_in_fp8([quantised], x.clone(), attend) - x).float() - exact
    work = x.clone()
    before = milliseconds(lambda: in_bfloat16(plain, x, attend))
    after = milliseconds(lambda: encode_in_fp8([quantised], work, attend))
    found = {"relative error": float(error.norm() / exact.norm()), "bfloat16, ms": before, "FP8, ms": after}
    found["ratio"] = before / after
    for name, linear in parts(quantised).items():
        inputs = kernels.quantise(torch.randn(len(x), linear.weight.shape[1], device=DEVICE))
        tera = 2 * len(x) * linear.weight.numel() / 1e9
        found[f"{name} in FP8, TFLOP/s"] = tera / milliseconds(functools.partial(product, linear, *inputs))
    qkv = torch.randn(len(x), quantised.self_attn.qkv_proj.weight.shape[0], device=DEVICE).bfloat16()
    found["attention, ms"] = milliseconds(lambda: attend(qkv))
    return {f"{case}: {name}": value for name, value in found.items()}


def in_bfloat16(layer: Any, x: torch.Tensor, attend: EncoderAttention) -> torch.Tensor:
    """The layer as the engine computes it in bfloat16."""
    linear = parts(layer)
    x = x + linear["out_proj"](attend(linear["qkv_proj"](layer.self_attn_layer_norm(x))).flatten(1))
    return x + linear["fc2"](functional.gelu(linear["fc1"](layer.final_layer_norm(x))))


def milliseconds(work: Callable[[], object], repeats: int = 10) -> float:
    """GPU time of one call, replayed from a CUDA graph."""
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            work()
    graph.replay()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    graph.replay()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / repeats


if __name__ == "__main__":
    main()
