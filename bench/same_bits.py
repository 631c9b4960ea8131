"""From how many rows on a product gives a row the same bits as in a full batch, and what it takes.

    python bench/same_bits.py [--device cpu] [--rows 16384]

An answer in 16 bits depends on who else is in its batch where the library takes another kernel for few rows, which sums
in another order. Printed: of each product of Qwen2-1.5B's shape with its adapter's columns, bfloat16, the share of the
first rows' elements that are as in the product of all rows, and the product's microseconds. `A of …` is what adapters
make of their input, `ours` by the kernel that predictions have for it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

SHAPES = {
    "q, k, v": (2048, 1584, True),
    "o": (1536, 1552, False),
    "gate, up": (17_920, 1568, False),
    "down": (1536, 8976, False),
    "A of x": (32, 1536, False),
    "A of down": (16, 8960, False),
    "ours of x": (32, 1536, False),
    "ours of down": (16, 8960, False),
    "head": (151_936, 1536, False),
}
"""Name of a product: columns that come out, columns that go in, with those of adapters of rank 8, and whether a bias is
added."""
FEW = (1, 8, 16, 64, 128, 256, 300, 512, 700, 1024, 1500, 2048, 4096, 6000, 8192)
HEAD = 4096
"""Rows of the head's full batch."""
PASSES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=16_384, help="of a full batch")
    asked = parser.parse_args()
    print(f"torch {torch.__version__}, {asked.device}; of {asked.rows} rows:")
    print(f"{'':12}", *(f"{rows:7}" for rows in FEW if rows <= asked.rows))
    for name in SHAPES:
        if asked.device == "cuda" or not name.startswith("ours"):
            told(name, asked.rows, asked.device)


def told(name: str, rows: int, device: str) -> None:
    out, width, biased = SHAPES[name]
    rows = min(rows, HEAD) if name == "head" else rows
    draw = torch.Generator(device).manual_seed(0)
    x, weight, bias = (
        torch.randn(*size, generator=draw, device=device).bfloat16() for size in ((rows, width), (out, width), (out,))
    )

    def product(few: int) -> torch.Tensor:
        if name.startswith("ours"):
            from weitiao.engine import kernels

            result = x.new_empty(few, out)
            kernels.low_rank_(x[:few], weight, result)
            return result
        return F.linear(x[:few], weight, bias if biased else None)

    whole = product(rows)
    few = [count for count in FEW if count <= rows]
    shares = [(product(count) == whole[:count]).float().mean().item() for count in few]
    seconds = [timed(lambda count=count: product(count), device) for count in few]  # type: ignore[misc]
    print(f"{name:12}", *(f"{share:7.2%}" for share in shares))
    print(f"{'':12}", *(f"{1e6 * second:7.0f}" for second in seconds), flush=True)


def timed(product: Callable[[], object], device: str) -> float:
    """Seconds of one."""
    wait = torch.cuda.synchronize if device == "cuda" else int
    product()
    wait()
    begin = time.perf_counter()
    for _ in range(PASSES):
        product()
    wait()
    return (time.perf_counter() - begin) / PASSES


if __name__ == "__main__":
    main()
