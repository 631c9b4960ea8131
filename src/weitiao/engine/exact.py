"""A pass in float32 over weights of 16 bits, without a second copy of them: for the few rows whose answer 16 bits leave
open.

A state is the sum of two halves of 16 bits, x = high + low, exact to 2⁻¹⁷; each is multiplied with the weights as they
are, on tensor cores, and the products are summed in float32. That takes three times as long as in 16 bits (decision
0023). The adapters are float32 and split in the same way.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from weitiao.engine.lora_gemm import LoraGroup

WIDER = 4
"""Times as much memory a token takes meanwhile, at most."""


def exact_product(x: torch.Tensor, weight: torch.Tensor, kernels: ModuleType) -> torch.Tensor:
    """x float32 [T, in] · weightᵀ of a 16-bit [out, in] → float32 [T, out]."""
    return _of_halves(kernels.halves(x, weight.dtype), weight)


class Exact:
    """In the place of a group's product, with the adapters as they are now."""

    def __init__(self, group: LoraGroup) -> None:
        self.group, dtype = group, group.buffer.dtype
        if not group.adapted:
            return
        count, rank = len(group.layers), group.rank
        a = group.scaling * torch.cat(group.parts[:count]).float()
        b = a.new_zeros(len(group.buffer), rank * count)
        for at, (rows, part) in enumerate(zip(group.rows, group.parts[count:], strict=True)):
            b[rows, at * rank : (at + 1) * rank] = part
        self.a = group.kernels.halves(a, dtype).flatten(0, 1)
        high, low = group.kernels.halves(b, dtype)
        self.b = torch.cat([high, high, low], dim=1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x float32 [T, in] → float32 [T, sum of out]."""
        group = self.group
        both = group.kernels.halves(x, group.buffer.dtype)
        out = _of_halves(both, group.buffer[:, : group.width])
        if group.bias is not None:
            out += group.bias
        if group.adapted:
            # Of each half with each half of A.
            four = _product(both.flatten(0, 1), self.a).unflatten(0, (2, -1)).unflatten(2, (2, -1))
            high, low = group.kernels.halves(four.sum((0, 2)), both.dtype)
            _product(torch.cat([high, low, high], dim=1), self.b, out)
        return out


def _of_halves(both: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Their sum [T, in], of [2, T, in], · weightᵀ."""
    high, low = both
    return _product(low, weight, _product(high, weight))


def _product(first: torch.Tensor, second: torch.Tensor, to: torch.Tensor | None = None) -> torch.Tensor:
    """first [T, K] · secondᵀ of [N, K], both of 16 bits, summed in float32: [T, N], or added to it."""
    if not first.is_cuda:
        found = first.float() @ second.float().T
        return found if to is None else to.add_(found)
    if to is None:
        return torch.mm(first, second.T, out_dtype=torch.float32)
    return torch.addmm(to, first, second.T, out_dtype=torch.float32, out=to)
