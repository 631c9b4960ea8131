"""A pass in float32 over weights of 16 bits, without a second copy of them: for the few rows whose answer 16 bits leave
open.

A state is split into two halves of 16 bits, x = high + low, exact to 2⁻¹⁷, and both are multiplied in one product that
sums in float32. So it costs twice what a pass in 16 bits costs, where products in float32 take ten times as long. What
PEFT's adapters compute, they compute in float32 as they do there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

WIDER = 4
"""Times as much memory a token takes meanwhile, at most: states of 32 bits, and two halves' products."""

if TYPE_CHECKING:
    from weitiao.engine.lora_gemm import LoraGroup


def exact_product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x float32 [T, in] · weightᵀ of a 16-bit [out, in] → float32 [T, out]."""
    if not x.is_cuda:
        return x @ weight.float().T
    both = torch.mm(torch.cat(halves(x, weight.dtype)), weight.T, out_dtype=torch.float32)
    return both[: len(x)].add_(both[len(x) :])


def halves(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """x float32 as a sum of two of 16 bits."""
    high = x.to(dtype)
    return high, (x - high).to(dtype)


class Exact:
    """In the place of a group's product."""

    def __init__(self, group: LoraGroup) -> None:
        self.group = group

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x float32 [T, in] → float32 [T, sum of out]."""
        group = self.group
        out = exact_product(x, group.buffer[:, : group.width])
        if group.bias is not None:
            out += group.bias
        if group.adapted:
            count = len(group.layers)
            parts = zip(group.rows, group.parts[:count], group.parts[count:], strict=True)
            for rows, a, b in parts:
                out[:, rows].addmm_(x @ a.float().T, b.float().T, alpha=group.scaling)
        return out
