"""Many adapters copied into their layers at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import triton
import triton.language as tl

from weitiao.engine.kernels.shapes import power

COPIED = 128
"""Rows that a program copies."""


@triton.jit
def _copy_rows(targets, sources, rows, strides, like, rank, ROWS: tl.constexpr, RANK: tl.constexpr):  # type: ignore[no-untyped-def]
    piece, first = tl.program_id(0), tl.program_id(1) * ROWS
    count = tl.load(rows + piece)
    if first < count:
        row, column = first + tl.arange(0, ROWS)[:, None], tl.arange(0, RANK)[None, :]
        inside = (row < count) & (column < rank)
        source = tl.load(sources + piece).to(tl.pointer_type(tl.float32))
        target = tl.load(targets + piece).to(tl.pointer_type(like.dtype.element_ty))
        value = tl.load(source + row * rank + column, inside, 0.0)
        there = target + row.to(tl.int64) * tl.load(strides + piece) + column
        tl.store(there, value.to(like.dtype.element_ty), inside)


def row_copier(targets: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> Callable[[], None]:
    first, rank = targets[0], sources[0].shape[1]
    tables = [
        torch.tensor(values, device=first.device)
        for values in (
            [target.data_ptr() for target in targets],
            [source.data_ptr() for source in sources],
            [len(source) for source in sources],
            [target.stride(0) for target in targets],
        )
    ]
    grid = (len(targets), triton.cdiv(max(map(len, sources)), COPIED))

    def copy() -> None:
        _copy_rows[grid](*tables, first, rank, COPIED, power(rank))

    return copy
