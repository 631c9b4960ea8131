"""Would gate, up and SwiGLU be faster as one kernel?

    python bench/fused_swiglu.py                       Qwen2-1.5B's MLP, 23,000 tokens, on a card
    TRITON_INTERPRET=1 python bench/fused_swiglu.py --device cpu --tokens 70 --hidden 96 --inner 130

Two ways from x [T, H] and the joined weight [2 I, H] to silu(x Gᵀ) · (x Uᵀ) [T, I], each kept up for --seconds, in
turn, so that both meet the clock that the card's power allows:

    apart   torch's product, which writes 2 I columns, and the package's kernel for SwiGLU, which reads them
    fused   one Triton kernel with two sums a program, for several shapes of programs
    kept    the same, which writes the 2 I columns as well, for the backward pass of a training

Error: ‖Δ‖/‖wanted‖ against float32.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import product

import torch
import triton
import triton.language as tl
from torch.nn import functional as F

from weitiao.engine import kernels

TOGETHER = 8
"""Blocks of rows that are computed side by side, so that what they read of the weight is still in the cache."""
SHAPES = [
    (rows, columns, depth, warps, stages)
    for (rows, columns, warps), depth, stages in product(
        ((128, 128, 8), (128, 64, 4), (256, 64, 8), (64, 128, 4)), (64,), (3, 4)
    )
]
"""Rows, columns and depth of a program's tile, its warps, and tiles that are loaded ahead."""


@triton.jit(do_not_specialize=["rows"])
def _fused(  # type: ignore[no-untyped-def]
    x,
    weight,
    out,
    both,
    rows,
    inner,
    hidden,
    stride_x,
    stride_w,
    stride_out,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    TOGETHER: tl.constexpr,
    EVEN: tl.constexpr,
):
    downwards, across = tl.cdiv(rows, ROWS), tl.cdiv(inner, COLUMNS)
    group, within = tl.program_id(0) // (TOGETHER * across), tl.program_id(0) % (TOGETHER * across)
    height = tl.minimum(downwards - group * TOGETHER, TOGETHER)
    row = (group * TOGETHER + within % height) * ROWS + tl.arange(0, ROWS)
    column = within // height * COLUMNS + tl.arange(0, COLUMNS)
    at = tl.arange(0, DEPTH)
    # What is outside is read from inside, and not written.
    of_x = x + (row % rows).to(tl.int64)[:, None] * stride_x + at[None, :]
    of_gate = weight + (column % inner).to(tl.int64)[None, :] * stride_w + at[:, None]
    of_up = of_gate + inner.to(tl.int64) * stride_w
    gate, up = tl.zeros((ROWS, COLUMNS), tl.float32), tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, hidden, DEPTH):
        if EVEN:
            a, g, u = tl.load(of_x), tl.load(of_gate), tl.load(of_up)
        else:
            there = start + at < hidden
            a = tl.load(of_x, there[None, :], 0.0)
            g, u = tl.load(of_gate, there[:, None], 0.0), tl.load(of_up, there[:, None], 0.0)
        gate = tl.dot(a, g, gate)
        up = tl.dot(a, u, up)
        of_x += DEPTH
        of_gate += DEPTH
        of_up += DEPTH
    result = gate / (1 + tl.exp(-gate)) * up
    place = out + row.to(tl.int64)[:, None] * stride_out + column[None, :]
    inside = (row < rows)[:, None] & (column < inner)[None, :]
    tl.store(place, result.to(out.dtype.element_ty), inside)
    if both is not None:
        place = both + row.to(tl.int64)[:, None] * 2 * inner + column[None, :]
        tl.store(place, gate.to(out.dtype.element_ty), inside)
        tl.store(place + inner, up.to(out.dtype.element_ty), inside)


def fused(
    x: torch.Tensor, weight: torch.Tensor, shape: tuple[int, int, int, int, int], kept: bool = False
) -> torch.Tensor:
    rows, columns, depth, warps, stages = shape
    inner = len(weight) // 2
    out, both = x.new_empty(len(x), inner), x.new_empty(len(x), 2 * inner) if kept else None
    grid = (triton.cdiv(len(x), rows) * triton.cdiv(inner, columns),)
    _fused[grid](
        *(x, weight, out, both, len(x), inner, x.shape[1], x.stride(0), weight.stride(0), out.stride(0)),
        *(rows, columns, depth, TOGETHER, x.shape[1] % depth == 0),
        num_warps=warps,
        num_stages=stages,
    )
    return out


def apart(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return kernels.swiglu(F.linear(x, weight), 0)


def kept_up(way: Callable[[], torch.Tensor], device: torch.device, seconds: float) -> float:
    """Seconds of a call, when it is called again and again."""

    def waited() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    waited()
    start, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - start < seconds:
        for _ in range(20 if device.type == "cuda" else 1):
            way()
            calls += 1
        waited()
    return (time.perf_counter() - start) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", type=int, default=23_000)
    parser.add_argument("--hidden", type=int, default=1536)
    parser.add_argument("--inner", type=int, default=8960)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    device = torch.device(asked.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    x = torch.randn(asked.tokens, asked.hidden, device=device, dtype=dtype)
    weight = 0.02 * torch.randn(2 * asked.inner, asked.hidden, device=device, dtype=dtype)
    gate, up = F.linear(x.float(), weight.float()).chunk(2, dim=1)
    wanted = F.silu(gate) * up
    ways: dict[str, Callable[[], torch.Tensor]] = {"apart": lambda: apart(x, weight)}
    for shape in SHAPES if device.type == "cuda" else SHAPES[:1]:
        ways[f"fused {shape}"] = partial(fused, x, weight, shape)
        ways[f"kept {shape}"] = partial(fused, x, weight, shape, kept=True)
    errors = {name: float((way().float() - wanted).norm() / wanted.norm()) for name, way in ways.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(asked.repeats if device.type == "cuda" else 1):
        for name, way in ways.items():
            taken[name].append(kept_up(way, device, asked.seconds))
    operations = 4 * asked.tokens * asked.hidden * asked.inner
    print(f"{asked.tokens} tokens, {asked.hidden} → 2 × {asked.inner} → {asked.inner}, {dtype} on {device}")
    for name, times in taken.items():
        middle = statistics.median(times)
        rate = operations / middle / 1e12
        print(f"{name:32} {1e3 * middle:7.3f} ms  {rate:6.1f} TFLOP/s  error {errors[name]:.1e}")


if __name__ == "__main__":
    main()
