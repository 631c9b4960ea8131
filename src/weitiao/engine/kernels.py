"""Triton kernels for what torch computes in several: SwiGLU and the rotation of heads, forward and backward.

They compute in float32 and round once, where torch rounds to 16 bits behind each of its own. `fast_layer` has the same
in torch. The shapes of programs are fixed and never tuned: the same machine, the same bits.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

WIDTH = 1024
"""Elements that a program of the SwiGLU kernels computes at a time."""


@triton.jit
def _swiglu(both, out, inner, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < inner
    gate = tl.load(both + row * 2 * inner + column, inside).to(tl.float32)
    up = tl.load(both + row * 2 * inner + inner + column, inside).to(tl.float32)
    result = gate / (1 + tl.exp(-gate)) * up
    tl.store(out + row * inner + column, result.to(out.dtype.element_ty), inside)


@triton.jit
def _swiglu_backward(both, gradient, out, inner, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < inner
    gate = tl.load(both + row * 2 * inner + column, inside).to(tl.float32)
    up = tl.load(both + row * 2 * inner + inner + column, inside).to(tl.float32)
    g = tl.load(gradient + row * inner + column, inside).to(tl.float32)
    share = 1 / (1 + tl.exp(-gate))
    of_gate = g * up * share * (1 + gate * (1 - share))
    of_up = g * gate * share
    tl.store(out + row * 2 * inner + column, of_gate.to(out.dtype.element_ty), inside)
    tl.store(out + row * 2 * inner + inner + column, of_up.to(out.dtype.element_ty), inside)


@triton.jit
def _rotate(x, cos, sin, out, stride_t, stride_h, heads, HALF: tl.constexpr, SIGN: tl.constexpr):  # type: ignore[no-untyped-def]
    token, head, at = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, HALF)
    here = x + token * stride_t + head * stride_h
    first, second = tl.load(here + at).to(tl.float32), tl.load(here + HALF + at).to(tl.float32)
    table = token * 2 * HALF + at
    c1, c2 = tl.load(cos + table).to(tl.float32), tl.load(cos + HALF + table).to(tl.float32)
    s1, s2 = tl.load(sin + table).to(tl.float32), tl.load(sin + HALF + table).to(tl.float32)
    there = out + (token * heads + head) * 2 * HALF
    if SIGN > 0:
        new_first, new_second = first * c1 - second * s1, second * c2 + first * s2
    else:
        new_first, new_second = first * c1 + second * s2, second * c2 - first * s1
    tl.store(there + at, new_first.to(out.dtype.element_ty))
    tl.store(there + HALF + at, new_second.to(out.dtype.element_ty))


class Swiglu(torch.autograd.Function):
    """silu(gate) · up [rows, I] of [rows, 2 I], gate and up side by side."""

    @staticmethod
    def forward(ctx: Any, both: torch.Tensor) -> torch.Tensor:
        both = both.contiguous()
        ctx.save_for_backward(both)
        rows, inner = both.shape[0], both.shape[1] // 2
        out = both.new_empty(rows, inner)
        _swiglu[(rows, triton.cdiv(inner, WIDTH))](both, out, inner, WIDTH)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (both,) = ctx.saved_tensors
        rows, inner = both.shape[0], both.shape[1] // 2
        out = torch.empty_like(both)
        _swiglu_backward[(rows, triton.cdiv(inner, WIDTH))](both, gradient.contiguous(), out, inner, WIDTH)
        return out


class Rotate(torch.autograd.Function):
    """Each head's halves turned against each other (RoPE): x cos + (−x₂, x₁) sin. A head's size is a power of 2."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """x [T, heads, D], the last dimension without gaps; cos, sin [T, 1, D]."""
        cos, sin = cos.contiguous(), sin.contiguous()
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(gradient, cos, sin, -1), None, None


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: int) -> torch.Tensor:
    if x.stride(2) != 1:
        x = x.contiguous()
    tokens, heads, size = x.shape
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _rotate[(tokens, heads)](x, cos, sin, out, x.stride(0), x.stride(1), heads, size // 2, sign)
    return out
