"""Fused kernels of an FP8 encoder layer, each beside its plain PyTorch form.

An FP8 product takes activations in E4M3 with one scale per row.  Each kernel reads a row once, holds it in registers
while the largest absolute value is found, and writes the quantised row and its scale:

    z = values of the row
    scale = max(|z|, SMALLEST) / LARGEST
    quantised = E4M3(z / scale)

The kernels compute in float32 and run on CUDA devices; the plain forms define their results and run elsewhere.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch.nn import functional

FP8 = torch.float8_e4m3fn
LARGEST = 448.0  # largest value of E4M3
SMALLEST = 1e-12  # keeps the scale of a row of zeros above 0

Quantised = tuple[torch.Tensor, torch.Tensor]
"""Values in E4M3 of shape (rows, width), and their scales in float32 of shape (rows, 1)."""


class Launch(NamedTuple):
    """Numbers of rows and of warps of one program of a Triton kernel."""

    rows: int
    warps: int


NORM_LAUNCH, GELU_LAUNCH, HEADS_LAUNCH = Launch(1, 1), Launch(1, 4), Launch(1, 1)
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""Whether Triton interprets the kernels on a CPU (TRITON_INTERPRET=1), as in tests."""
_LARGEST, _SMALLEST, VECTOR = tl.constexpr(LARGEST), tl.constexpr(SMALLEST), tl.constexpr(8)


def quantise(rows: torch.Tensor) -> Quantised:
    """Quantise rows of any floating-point type and shape (rows, width)."""
    values = rows.float()
    largest = values.abs().amax(-1, keepdim=True).clamp(min=SMALLEST)
    return (values * (LARGEST / largest)).to(FP8), largest / LARGEST


def add_norm_quantise_plain(x: torch.Tensor, update: torch.Tensor | None, norm: torch.nn.LayerNorm) -> Quantised:
    """Add `update` to the residual stream `x` in place, then apply LayerNorm and quantise.

    Args:
        x: bfloat16 of shape (rows, width).
        update: as `x`; None adds nothing.
    """
    if update is not None:
        x += update
    values = functional.layer_norm(x.float(), norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps)
    return quantise(values)


def gelu_quantise_plain(x: torch.Tensor) -> Quantised:
    """Apply GELU with the error function, as Whisper does, and quantise rows of shape (rows, width)."""
    return quantise(functional.gelu(x.float()))


def quantise_heads_plain(heads: torch.Tensor) -> Quantised:
    """Quantise an attention's output of shape (rows, heads, size), one scale for all heads of a row."""
    return quantise(heads.flatten(1))


def add_norm_quantise(
    x: torch.Tensor, update: torch.Tensor | None, norm: torch.nn.LayerNorm, launch: Launch = NORM_LAUNCH
) -> Quantised:
    """`add_norm_quantise_plain` as one kernel."""
    if not _has_triton(x):
        return add_norm_quantise_plain(x, update, norm)
    inputs = (x, x if update is None else update, norm.weight, norm.bias)
    return _run(_add_norm_quantise, launch, x.shape[1], *inputs, epsilon=norm.eps, has_update=update is not None)


def gelu_quantise(x: torch.Tensor, launch: Launch = GELU_LAUNCH) -> Quantised:
    """`gelu_quantise_plain` as one kernel."""
    if not _has_triton(x):
        return gelu_quantise_plain(x)
    return _run(_gelu_quantise, launch, x.shape[1], x)


def quantise_heads(heads: torch.Tensor, launch: Launch = HEADS_LAUNCH) -> Quantised:
    """`quantise_heads_plain` as one kernel; the heads may be views of longer ones."""
    if not _has_triton(heads):
        return quantise_heads_plain(heads)
    _, count, size = heads.shape
    strides = {"row_stride": heads.stride(0), "head_stride": heads.stride(1)}
    return _run(_quantise_heads, launch, count * size, heads, size=size, **strides)


def _has_triton(values: torch.Tensor) -> bool:
    return values.is_cuda or INTERPRETED.value


def _run(kernel: Any, launch: Launch, width: int, *inputs: torch.Tensor, **constants: Any) -> Quantised:
    """Launch a kernel over the rows of the first input.

    Triton's blocks have powers of 2 as sizes, and the widths of Whisper are sums of two.  A row is loaded in two parts,
    because one block of the next power of 2 would leave up to 40 % of the threads without values.
    """
    rows, device = inputs[0].shape[0], inputs[0].device
    quantised = torch.empty(rows, width, dtype=FP8, device=device)
    scales = torch.empty(rows, 1, device=device)
    first = triton.next_power_of_2(width) // 2
    kernel[(triton.cdiv(rows, launch.rows),)](
        *inputs,
        quantised,
        scales,
        rows,
        **constants,
        width=width,
        first_size=first,
        rest_size=triton.next_power_of_2(width - first),
        block=launch.rows,
        num_warps=launch.warps,
    )
    return quantised, scales


# Triton compiles the following functions, which have no types.


@triton.jit
def _rows_and_columns(rows, block: tl.constexpr, first_size: tl.constexpr, rest_size: tl.constexpr):
    """The rows of this program, and the columns of both parts.

    A thread reads and writes vectors of 8, which are 16 bytes of bfloat16.  Without this limit Triton selects vectors
    of 16 for E4M3, and exchanges values between threads to form them.
    """
    row = (tl.program_id(0).to(tl.int64) * block + tl.arange(0, block))[:, None]
    first = tl.max_contiguous(tl.arange(0, first_size), VECTOR)[None, :]
    rest = first_size + tl.max_contiguous(tl.arange(0, rest_size), VECTOR)[None, :]
    return row, row < rows, first, rest


@triton.jit
def _store(quantised, scales, row, is_row, first, rest, a, b, width: tl.constexpr):
    """Quantise the values of both parts, and store them with their scales."""
    largest = tl.maximum(tl.max(tl.abs(a), 1), tl.max(tl.abs(b), 1))
    largest = tl.maximum(largest, _SMALLEST)[:, None]
    inverse = _LARGEST / largest
    target = quantised + row * width
    tl.store(target + first, (a * inverse).to(tl.float8e4nv), mask=is_row)
    tl.store(target + rest, (b * inverse).to(tl.float8e4nv), mask=is_row & (rest < width))
    tl.store(scales + row, largest / _LARGEST, mask=is_row)


@triton.jit(do_not_specialize=["rows"])
def _add_norm_quantise(
    x,
    update,
    weight,
    bias,
    quantised,
    scales,
    rows,
    epsilon: tl.constexpr,
    has_update: tl.constexpr,
    width: tl.constexpr,
    first_size: tl.constexpr,
    rest_size: tl.constexpr,
    block: tl.constexpr,
):
    row, is_row, first, rest = _rows_and_columns(rows, block, first_size, rest_size)
    is_rest = rest < width
    start = row * width
    a = tl.load(x + start + first, mask=is_row, other=0.0)
    b = tl.load(x + start + rest, mask=is_row & is_rest, other=0.0)
    if has_update:
        more_a = tl.load(update + start + first, mask=is_row, other=0.0)
        more_b = tl.load(update + start + rest, mask=is_row & is_rest, other=0.0)
        a = (a.to(tl.float32) + more_a.to(tl.float32)).to(a.dtype)
        b = (b.to(tl.float32) + more_b.to(tl.float32)).to(b.dtype)
        tl.store(x + start + first, a, mask=is_row)
        tl.store(x + start + rest, b, mask=is_row & is_rest)
    a, b = a.to(tl.float32), b.to(tl.float32)
    mean = ((tl.sum(a, 1) + tl.sum(b, 1)) / width)[:, None]
    a, b = a - mean, tl.where(is_rest, b - mean, 0.0)
    variance = ((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / width)[:, None]
    factor = tl.rsqrt(variance + epsilon)
    a = a * factor * tl.load(weight + first).to(tl.float32) + tl.load(bias + first).to(tl.float32)
    rest_weight = tl.load(weight + rest, mask=is_rest, other=0.0).to(tl.float32)
    b = b * factor * rest_weight + tl.load(bias + rest, mask=is_rest, other=0.0).to(tl.float32)
    _store(quantised, scales, row, is_row, first, rest, a, b, width)


@triton.jit(do_not_specialize=["rows"])
def _gelu_quantise(
    x,
    quantised,
    scales,
    rows,
    width: tl.constexpr,
    first_size: tl.constexpr,
    rest_size: tl.constexpr,
    block: tl.constexpr,
):
    row, is_row, first, rest = _rows_and_columns(rows, block, first_size, rest_size)
    a = tl.load(x + row * width + first, mask=is_row, other=0.0)
    b = tl.load(x + row * width + rest, mask=is_row & (rest < width), other=0.0)
    a, b = _gelu(a.to(tl.float32)), _gelu(b.to(tl.float32))
    _store(quantised, scales, row, is_row, first, rest, a, b, width)


@triton.jit(do_not_specialize=["rows"])
def _quantise_heads(
    heads,
    quantised,
    scales,
    rows,
    size: tl.constexpr,
    row_stride: tl.constexpr,
    head_stride: tl.constexpr,
    width: tl.constexpr,
    first_size: tl.constexpr,
    rest_size: tl.constexpr,
    block: tl.constexpr,
):
    row, is_row, first, rest = _rows_and_columns(rows, block, first_size, rest_size)
    start = heads + row * row_stride
    a = tl.load(start + first // size * head_stride + first % size, mask=is_row, other=0.0)
    b = tl.load(start + rest // size * head_stride + rest % size, mask=is_row & (rest < width), other=0.0)
    _store(quantised, scales, row, is_row, first, rest, a.to(tl.float32), b.to(tl.float32), width)


@triton.jit
def _gelu(x):
    """GELU as x / (1 + 2^(x P(x²))).

    P is fitted to log2((1 - N(x)) / N(x)) / x, where N is the normal distribution function, such that the absolute
    error is at most 4e-6, which is below the rounding of bfloat16 for x > -3.4 and small in E4M3 elsewhere.  The error
    function would take longer than the kernel's memory accesses.
    """
    square = x * x
    polynomial = -3.2102475e-06 * square + 8.7907458e-05
    polynomial = polynomial * square + 3.6206027e-04
    polynomial = polynomial * square - 1.0523000e-01
    polynomial = polynomial * square - 2.3020437
    return x * _reciprocal(1.0 + _exp2(x * polynomial))


@triton.jit
def _exp2(x):
    """2^x without the instructions for subnormal results."""
    if INTERPRETED:
        return tl.exp2(x)
    else:  # noqa: RET505  # Triton compiles only one of the branches
        return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)


@triton.jit
def _reciprocal(x):
    """1 / x without the instructions for subnormal values."""
    if INTERPRETED:
        return 1.0 / x
    else:  # noqa: RET505
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)
