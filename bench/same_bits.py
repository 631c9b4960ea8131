"""From how many rows on a product gives a row the same bits as in a full batch.

    python bench/same_bits.py [--device cpu] [--rows 16384]

An answer in 16 bits depends on who else is in its batch where the library takes another kernel for few rows, which sums
in another order. Printed: of each product of Qwen2-1.5B's shape with its adapter's columns, bfloat16, the share of the
first rows' elements that are as in the product of all rows.
"""

from __future__ import annotations

import argparse

import torch

SHAPES = {"q, k, v": (2048, 1584), "o": (1536, 1552), "gate, up": (17_920, 1568), "down": (1536, 8976)}
"""Name of a product: columns that come out, and columns that go in, with those of adapters of rank 8."""
FEW = (1, 16, 64, 128, 256, 512, 1024, 4096)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=16_384, help="of a full batch")
    asked = parser.parse_args()
    print(f"torch {torch.__version__}, {asked.device}; rows: {', '.join(map(str, FEW))} of {asked.rows}")
    draw = torch.Generator(asked.device).manual_seed(0)
    for name, (out, width) in SHAPES.items():
        x, weight = (
            torch.randn(rows, width, generator=draw, device=asked.device).bfloat16() for rows in (asked.rows, out)
        )
        whole = x @ weight.T
        shares = [(x[:few] @ weight.T == whole[:few]).float().mean().item() for few in FEW if few <= asked.rows]
        print(f"{name:10}", *(f"{share:7.2%}" for share in shares), flush=True)


if __name__ == "__main__":
    main()
