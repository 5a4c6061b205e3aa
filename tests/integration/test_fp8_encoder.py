"""The encoder in FP8: each kernel against exact arithmetic, and whole layers against float32; no engine is started.

Without a GPU Triton interprets the kernels, in a process of its own, because it reads TRITON_INTERPRET when it is
imported.  Marked `gpu`: the same on a GPU; `-s` shows the figures.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.support.encoder_layers import in_fp8, layer_norm, layer_of, parts

ROOT = Path(__file__).parents[2]
HAS_GPU = torch.cuda.is_available()
ON_A_GPU = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="no GPU")]
DEVICES = ["cpu", pytest.param("cuda", marks=ON_A_GPU)]
WIDTHS = (384, 512, 1280, 1536)  # of tiny, base and large, and of tiny's MLP; 512 is a power of 2
ROWS = 7


def normalised(layer: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    """The norm in the type of `x`."""
    return functional.layer_norm(x, layer.normalized_shape, layer.weight.to(x.dtype), layer.bias.to(x.dtype), layer.eps)


def rows_of(width: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Two matrices with rows of very different size, one of zeros, and one with an outlier as Whisper's have.

    Their sum needs no rounding in bfloat16, which Triton's interpreter does not round correctly.
    """
    size = 2.0 ** torch.arange(-9, 5, 2)[:ROWS, None]
    x, update = (torch.randint(-64, 64, (ROWS, width)) * size for _ in range(2))
    x[1] = update[1] = update[3, 5] = 0.0
    x[3, 5] = 96.0 * 2**7
    return x.to(device, torch.bfloat16), update.to(device, torch.bfloat16)


def check(found: tuple[torch.Tensor, torch.Tensor], exact: torch.Tensor) -> None:
    """Scales map the largest value of a row to 448, and each value is rounded to the nearest in E4M3."""
    quantised, scales = found
    assert quantised.dtype == torch.float8_e4m3fn
    assert quantised.shape == exact.shape
    assert scales.shape == (len(exact), 1)
    wanted = exact.abs().amax(1, keepdim=True).clamp(min=1e-12) / 448
    assert torch.allclose(scales.double(), wanted, rtol=1e-4, atol=0)
    scaled = exact / scales
    power = torch.exp2(scaled.abs().clamp(min=2**-6).log2().floor())
    correct = (quantised.double() - scaled).abs() <= 0.52 * power / 8
    if os.environ.get("TRITON_INTERPRET"):  # it truncates subnormals, and loses the carry of values below a power of 2
        correct |= (scaled.abs() < 2**-6) | (scaled.abs() >= 1.9375 * power)
    assert correct.all()


@torch.inference_mode()
def check_kernels(device: str) -> None:
    """Each kernel, in several launches, and its plain form."""
    from whisperbench.engines.vllm import fp8_kernels as kernels

    torch.manual_seed(5)
    launches = [kernels.Launch(1, 1), kernels.Launch(4, 2)]
    for width in WIDTHS if device == "cpu" else WIDTHS[::2]:  # a GPU compiles each case
        (x, update), layer = rows_of(width, device), layer_norm(width, device)
        added = x + update
        for each, stream in ((None, x), (update, added)):
            exact = normalised(layer, stream.double())
            for call in with_launches(kernels.add_norm_quantise, kernels.add_norm_quantise_plain, launches):
                into = x.clone()
                check(call(into, each, layer), exact)
                assert torch.equal(into, stream)
        for call in with_launches(kernels.gelu_quantise, kernels.gelu_quantise_plain, launches):
            check(call(update), functional.gelu(update.double()))
        heads = torch.randn(ROWS, width // 64, 72, device=device).bfloat16()[..., :64]
        for call in with_launches(kernels.quantise_heads, kernels.quantise_heads_plain, launches):
            check(call(heads), heads.flatten(1).double())


def with_launches(kernel: Any, plain: Any, launches: list[Any]) -> list[Callable[..., Any]]:
    return [plain, *(lambda *inputs, launch=launch: kernel(*inputs, launch) for launch in launches)]


def test_kernels_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    code = "from tests.integration.test_fp8_encoder import check_kernels; check_kernels('cpu')"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="no GPU")
def test_kernels_on_a_gpu() -> None:
    check_kernels("cuda")


@torch.inference_mode()
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weighted", [False, True])
def test_layers_in_fp8_are_those_in_float32(device: str, weighted: bool) -> None:
    """Two windows, whose sparse keys have weights: within 8 % of the contribution of three layers."""
    from whisperbench.engines.vllm.attention import EncoderAttention
    from whisperbench.engines.vllm.fp8_encoder import encode_in_fp8

    torch.manual_seed(3)
    width, lengths = (1280, [301, 96]) if device == "cuda" else (384, [37, 12])
    layers = [layer_of(width, device, torch.float32) for _ in range(3)]
    quantised = [in_fp8(layer, weighted_keys=weighted) for layer in layers]
    x = torch.randn(sum(lengths), width, device=device).bfloat16()
    log_weights = torch.where(torch.arange(len(x), device=device) % 7 == 6, 2.77, 0.0) if weighted else None
    attend = EncoderAttention(width // 64, 64, lengths, log_weights, x)
    wanted = x.float()
    for layer in layers:
        linear = parts(layer)
        qkv = linear["qkv_proj"](normalised(layer.self_attn_layer_norm, wanted))
        windows = qkv.view(-1, 3, width // 64, 64).permute(1, 2, 0, 3).split(lengths, dim=2)
        weights = [None] * len(lengths) if log_weights is None else log_weights.split(lengths)
        mixed = [
            functional.scaled_dot_product_attention(*window, attn_mask=None if w is None else w.expand(len(w), -1))
            for window, w in zip(windows, weights, strict=True)
        ]
        wanted = wanted + linear["out_proj"](torch.cat(mixed, dim=1).transpose(0, 1).flatten(1))
        hidden = functional.gelu(linear["fc1"](normalised(layer.final_layer_norm, wanted)))
        wanted = wanted + linear["fc2"](hidden)
    change = wanted - x.float()
    found = encode_in_fp8(quantised, x.clone(), attend).float() - x.float()
    error = float((found - change).norm() / change.norm())
    print(f"\nthree layers in FP8 on {device}: relative error of their contribution {error:.3f}")
    assert 0.005 < error < 0.08
