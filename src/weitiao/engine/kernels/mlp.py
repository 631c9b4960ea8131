"""SwiGLU, and the gradient of an MLP from behind it to its adapters."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from weitiao.engine.kernels import row_attention
from weitiao.engine.kernels.dropout import Noise, limit_of, stays
from weitiao.engine.kernels.shapes import WIDTH, joined

MLP_CHUNK, MLP_ROWS, MLP_COLUMNS, MLP_WARPS = 2048, 32, 32, 2
"""Rows over which a program sums gradients of adapters, rows and columns that it holds, and its warps: of 60 shapes the
fastest on an H200."""


@triton.jit
def _swiglu(both, out, inner, stride, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < inner
    gate = tl.load(both + row * 2 * inner + column, inside).to(tl.float32)
    up = tl.load(both + row * 2 * inner + inner + column, inside).to(tl.float32)
    result = gate / (1 + tl.exp(-gate)) * up
    tl.store(out + row * stride + column, result.to(out.dtype.element_ty), inside)


def swiglu(both: torch.Tensor, pad: int) -> torch.Tensor:
    rows, inner = both.shape[0], both.shape[1] // 2
    out = both.new_empty(rows, inner + pad)
    _swiglu[(rows, triton.cdiv(inner, WIDTH))](both, out, inner, inner + pad, WIDTH)
    return out


@triton.jit
def _swiglu_backward(both, gradient, out, inner, stride, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < inner
    gate = tl.load(both + row * 2 * inner + column, inside).to(tl.float32)
    up = tl.load(both + row * 2 * inner + inner + column, inside).to(tl.float32)
    g = tl.load(gradient + row * stride + column, inside).to(tl.float32)
    share = 1 / (1 + tl.exp(-gate))
    of_gate = g * up * share * (1 + gate * (1 - share))
    of_up = g * gate * share
    tl.store(out + row * 2 * inner + column, of_gate.to(out.dtype.element_ty), inside)
    tl.store(out + row * 2 * inner + inner + column, of_up.to(out.dtype.element_ty), inside)


def swiglu_backward(g: torch.Tensor, both: torch.Tensor) -> torch.Tensor:
    rows, inner = both.shape[0], both.shape[1] // 2
    g, out = joined(g), torch.empty_like(both)
    _swiglu_backward[(rows, triton.cdiv(inner, WIDTH))](both, g, out, inner, g.stride(0), WIDTH)
    return out


@triton.jit(do_not_specialize=["rows", "place_of_mask", "limit"])
def _mlp_backward(  # type: ignore[no-untyped-def]
    g,
    both,
    a,
    inner,
    out,
    sum_a,
    sum_b,
    rows,
    width,
    stride,
    stride_inner,
    rank,
    up_from,
    seed,
    place_of_mask,
    limit,
    scale,
    DROP: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    P: tl.constexpr,
    Q: tl.constexpr,
):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    chunk = tl.program_id(1)
    inside = (column < width)[None, :]
    of_p, of_q = tl.arange(0, P), tl.arange(0, Q)
    factor = tl.load(a + of_p[:, None] * width + column[None, :], inside, 0.0)
    total_a = tl.zeros((P, COLUMNS), tl.float32)
    total_gate, total_up = tl.zeros((Q, COLUMNS), tl.float32), tl.zeros((Q, COLUMNS), tl.float32)
    for low in range(chunk * CHUNK, tl.minimum((chunk + 1) * CHUNK, rows), ROWS):
        row = (low + tl.arange(0, ROWS)).to(tl.int64)
        here = (row < rows)[:, None]
        late = tl.load(g + row[:, None] * stride + width + of_p[None, :], here, 0.0)
        value = tl.load(g + row[:, None] * stride + column[None, :], here & inside, 0.0).to(tl.float32)
        more = tl.dot(late, factor, input_precision="ieee")
        if DROP:
            kept = stays(row[:, None] * width + column[None, :], seed, place_of_mask, limit)
            more = tl.where(kept, more * scale, 0.0)
        value += more
        place = row[:, None] * 2 * width + column[None, :]
        gate = tl.load(both + place, here & inside, 0.0).to(tl.float32)
        up = tl.load(both + place + width, here & inside, 0.0).to(tl.float32)
        share = 1 / (1 + tl.exp(-gate))
        of_gate = (value * up * share * (1 + gate * (1 - share))).to(out.dtype.element_ty)
        of_up = (value * gate * share).to(out.dtype.element_ty)
        tl.store(out + place, of_gate, here & inside)
        tl.store(out + place + width, of_up, here & inside)
        low_rank = tl.trans(tl.load(inner + row[:, None] * stride_inner + of_q[None, :], here, 0.0))
        total_gate += tl.dot(low_rank, of_gate, input_precision="ieee")
        total_up += tl.dot(low_rank, of_up, input_precision="ieee")
        seen = gate * share * up
        if DROP:
            seen = tl.where(kept, seen * scale, 0.0)
        total_a += tl.dot(tl.trans(late), seen.to(late.dtype), input_precision="ieee")
    tl.store(sum_a + (chunk * P + of_p[:, None]) * width + column[None, :], total_a, inside)
    there = sum_b + (chunk * 2 * rank + of_q[:, None]) * width + column[None, :]
    tl.store(there, total_gate, inside & (of_q < rank)[:, None])
    of_rank = (of_q >= up_from) & (of_q < up_from + rank)
    tl.store(there + (rank - up_from) * width, total_up, inside & of_rank[:, None])


def mlp_backward(
    g: torch.Tensor, both: torch.Tensor, a: torch.Tensor, inner: torch.Tensor, rank: int, up: int, noise: Noise
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rate, seed, place = noise
    rows, width, pad = len(g), a.shape[1], len(a)
    out = torch.empty_like(both)
    chunks = triton.cdiv(rows, MLP_CHUNK)
    # In float32 as `tile` says, which tells why.
    step, warps = row_attention.tile(both.dtype)
    warps = MLP_WARPS if step >= MLP_ROWS else warps
    sum_a = both.new_empty(chunks, pad, width, dtype=torch.float32)
    sum_b = both.new_empty(chunks, 2, rank, width, dtype=torch.float32)
    _mlp_backward[(triton.cdiv(width, MLP_COLUMNS), chunks)](
        *(g, both, a, inner, out, sum_a, sum_b, rows, width, g.stride(0), inner.stride(0), rank, up),
        *(seed, place, limit_of(rate), 1 / (1 - rate), rate > 0),
        *(MLP_CHUNK, min(step, MLP_ROWS), MLP_COLUMNS, pad, inner.shape[1]),
        num_warps=warps,
        num_stages=2,
    )
    return out, sum_a.sum(0), sum_b.sum(0).transpose(1, 2).contiguous()
