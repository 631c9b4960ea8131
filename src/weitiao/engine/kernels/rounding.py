"""Numbers of float32 in two halves of 16 bits each."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from weitiao.engine.kernels.shapes import WIDTH


@triton.jit(do_not_specialize=["rows"])
def _halves(x, out, rows, width, stride, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < width
    value = tl.load(x + row * stride + column, inside, 0.0)
    high = value.to(out.dtype.element_ty)
    tl.store(out + row * width + column, high, inside)
    low = (value - high.to(tl.float32)).to(out.dtype.element_ty)
    tl.store(out + (rows + row) * width + column, low, inside)


def halves(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    rows, width = x.shape
    out = x.new_empty(2, rows, width, dtype=dtype)
    _halves[(rows, triton.cdiv(width, WIDTH))](x, out, rows, width, x.stride(0), WIDTH)
    return out
