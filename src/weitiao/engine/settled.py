"""Weights that stay as they are for many predictions on a CPU: a group's layers and adapters as one matrix, W + B A,
laid out as oneDNN wants it where that is faster than MKL: on an AMD, and on any processor with few rows.

In float32 that changes a log-probability by some 1e-6 nats, as another size of the batch does; in 16 bits W + B A would
be rounded. It is a copy: the parameters stay what they are.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import psutil
import torch
from torch.nn import functional as F

from weitiao.tracking.machine import processor

if TYPE_CHECKING:
    from weitiao.engine.lora_gemm import LoraGroup

BYTES = 2 * 2**30
"""Most that they may take: those of a model with half a billion weights do, of one with more a laptop has no room."""
SPARE = 2
"""Times as much as they take has to be free: the rest is for what is computed with them."""

FEW = 1024
"""Rows of a product from which on MKL is faster on an Intel: with 1,450 by a tenth, with 512 and less it is slower."""


class Settled:
    def __init__(self, group: LoraGroup, rows: int) -> None:
        """With the adapters as they are now; that they are not trained meanwhile, `current` tells. rows: of most of the
        products that come."""
        self.group, self.adapted = group, group.adapted
        weight, b = group.buffer[:, : group.width], group.buffer[:, group.width :]
        self.a, self.b = group.a.clone(), b.clone()
        whole = torch.addmm(weight, b, group.a) if self.adapted else weight.contiguous()
        self.packed = packing(rows)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(whole) if self.packed else whole

    def current(self) -> bool:
        """Whether the group has the same adapters still."""
        b = self.group.buffer[:, self.group.width :]
        return self.adapted == self.group.adapted and self.a.equal(self.group.a) and self.b.equal(b)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [T, in] → [T, sum of out]."""
        if not self.packed:
            return F.linear(x, self.weight, self.group.bias)
        # To this torch compiles `F.linear` of constant weights. Else it calls MKL.
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.group.bias, "none", [], "")
        return out


def packing(rows: int) -> bool:
    """Whether products of so many rows are oneDNN's: it is here, in a build that knows this processor well, and is not
    the slower one. Torch does not promise its operators."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and platform.machine().lower() in ("x86_64", "amd64") and (rows < FEW or not _intel())


@cache
def _intel() -> bool:
    return "intel" in processor().lower()


def room_for(groups: Sequence[LoraGroup]) -> bool:
    """Whether the machine has memory for all of them now."""
    return bool(psutil.virtual_memory().available >= SPARE * _bytes(groups))


def can_settle(groups: Sequence[LoraGroup]) -> bool:
    here = all(group.buffer.device.type == "cpu" and group.buffer.dtype == torch.float32 for group in groups)
    return here and _bytes(groups) <= BYTES


def _bytes(groups: Sequence[LoraGroup]) -> int:
    return sum(group.buffer.nbytes for group in groups)
