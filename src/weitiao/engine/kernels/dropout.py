"""Dropout that is computed anew, not kept: a number's place and a seed say whether it stays."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from weitiao.engine.kernels.shapes import WIDTH

Noise = tuple[float, torch.Tensor, int]
"""Rate, seed, and the place of the mask."""


@triton.jit(do_not_specialize=["place", "limit"])
def _dropped(  # type: ignore[no-untyped-def]
    x, out, seed, place, limit, scale, width, stride, stride_out, ADD: tl.constexpr, WIDTH: tl.constexpr
):
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < width
    kept = stays(row * width + column, seed, place, limit)
    value = tl.load(x + row * stride + column, inside, 0.0).to(tl.float32)
    value = tl.where(kept, value * scale, 0.0)
    there = out + row * stride_out + column
    if ADD:
        value += tl.load(there, inside, 0.0).to(tl.float32)
    tl.store(there, value.to(out.dtype.element_ty), inside)


@triton.jit
def stays(number, seed, place, limit):  # type: ignore[no-untyped-def]
    key = _mixed((tl.load(seed) * 8191 + place).to(tl.uint32))
    return _mixed(_mixed(number.to(tl.uint32) ^ key) ^ key) >= limit.to(tl.uint32)


@triton.jit
def _mixed(x):  # type: ignore[no-untyped-def]
    """The last step of MurmurHash3 (Appleby): every bit of uint32 depends on every bit."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return x ^ (x >> 16)


def dropped(x: torch.Tensor, rate: float, seed: torch.Tensor, place: int) -> torch.Tensor:
    out = x.new_empty(x.shape)
    _drop(x, out, rate, seed, place, False)
    return out


def add_dropped_(out: torch.Tensor, more: torch.Tensor, rate: float, seed: torch.Tensor, place: int) -> None:
    _drop(more, out, rate, seed, place, True)


def _drop(x: torch.Tensor, out: torch.Tensor, rate: float, seed: torch.Tensor, place: int, add: bool) -> None:
    rows, width = x.shape
    _dropped[(rows, triton.cdiv(width, WIDTH))](
        *(x, out, seed, place, limit_of(rate), 1 / (1 - rate), width, x.stride(0), out.stride(0)),
        *(add, WIDTH),
    )


def limit_of(rate: float) -> int:
    """Never a number that Triton would compile in."""
    return max(16, round(rate * (2**32 - 1)))
