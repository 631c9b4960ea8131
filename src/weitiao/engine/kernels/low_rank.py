"""What adapters make of their input, in sums whose order does not depend on how many rows there are."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from weitiao.engine.kernels.shapes import power

ROWS, STEP, WARPS, STAGES = 64, 128, 4, 3
"""Rows of a program, most columns that it multiplies at a time, its warps, and tiles that it reads ahead: of 25
shapes the fastest on an H200."""
FACTORS = 4096
"""Elements of A that a program holds at a time, a few times over: smaller cards have 99 KiB for that."""


@triton.jit(do_not_specialize=["rows"])
def _low_rank(x, a, out, rows, width, pad, stride, stride_out, ROWS: tl.constexpr, STEP: tl.constexpr, P: tl.constexpr):  # type: ignore[no-untyped-def]
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    here, column, at = (row < rows)[:, None], tl.arange(0, P), tl.arange(0, STEP)
    total = tl.zeros((ROWS, P), tl.float32)
    for low in range(0, width, STEP):
        inside = low + at < width
        value = tl.load(x + row[:, None] * stride + (low + at)[None, :], here & inside[None, :], 0.0)
        factor = tl.load(
            a + column[:, None] * width + (low + at)[None, :], (column < pad)[:, None] & inside[None, :], 0.0
        )
        total += tl.dot(value, tl.trans(factor), input_precision="ieee")
    there = out + row[:, None] * stride_out + column[None, :]
    tl.store(there, total.to(out.dtype.element_ty), here & (column < pad)[None, :])


def low_rank_(x: torch.Tensor, a: torch.Tensor, out: torch.Tensor) -> None:
    (rows, width), pad = x.shape, len(a)
    columns = power(max(pad, 16))
    step = min(STEP, FACTORS // columns)
    if x.dtype.itemsize != 2 or step < 16:
        torch.mm(x, a.T, out=out)
        return
    told = (x, a, out, rows, width, pad, x.stride(0), out.stride(0))
    _low_rank[(triton.cdiv(rows, ROWS),)](*told, ROWS, step, columns, num_warps=WARPS, num_stages=STAGES)
