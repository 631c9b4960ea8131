"""Sum and norm, and its gradient."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from weitiao.engine.kernels.shapes import joined, power


@triton.jit
def _add_norm(x, delta, weight, summed, normed, rstd, width, stride, eps, DELTA: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = at < width
    value = tl.load(x + row * width + at, inside, 0.0).to(tl.float32)
    if DELTA:
        value += tl.load(delta + row * width + at, inside, 0.0).to(tl.float32)
        rounded = value.to(summed.dtype.element_ty)
        tl.store(summed + row * width + at, rounded, inside)
        value = rounded.to(tl.float32)
    scale = 1 / tl.sqrt(tl.sum(value * value) / width + eps)
    tl.store(rstd + row, scale)
    result = value * scale * tl.load(weight + at, inside, 0.0).to(tl.float32)
    tl.store(normed + row * stride + at, result.to(normed.dtype.element_ty), inside)


def add_norm(
    x: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, eps: float, pad: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows, width = x.shape
    x = x.contiguous()
    delta = None if delta is None else delta.contiguous()
    summed = x if delta is None else torch.empty_like(x)
    normed, rstd = x.new_empty(rows, width + pad), x.new_empty(rows, dtype=torch.float32)
    _add_norm[(rows,)](
        x, delta, weight, summed, normed, rstd, width, width + pad, eps, delta is not None, power(width), num_warps=8
    )
    return summed, normed, rstd


@triton.jit
def _add_norm_backward(
    g, more, x, weight, rstd, out, width, stride, stride_more, MORE: tl.constexpr, BLOCK: tl.constexpr
):  # type: ignore[no-untyped-def]
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = at < width
    scale = tl.load(rstd + row)
    unit = tl.load(x + row * width + at, inside, 0.0).to(tl.float32) * scale
    weighted = tl.load(g + row * stride + at, inside, 0.0).to(tl.float32)
    weighted *= tl.load(weight + at, inside, 0.0).to(tl.float32)
    result = scale * (weighted - unit * (tl.sum(weighted * unit) / width))
    if MORE:
        result += tl.load(more + row * stride_more + at, inside, 0.0).to(tl.float32)
    tl.store(out + row * width + at, result.to(out.dtype.element_ty), inside)


def add_norm_backward(
    g: torch.Tensor, more: torch.Tensor | None, x: torch.Tensor, weight: torch.Tensor, rstd: torch.Tensor
) -> torch.Tensor:
    rows, width = x.shape
    g, out = joined(g), torch.empty_like(x)
    more = None if more is None else joined(more)
    stride_more = 0 if more is None else more.stride(0)
    _add_norm_backward[(rows,)](
        g, more, x, weight, rstd, out, width, g.stride(0), stride_more, more is not None, power(width), num_warps=8
    )
    return out
