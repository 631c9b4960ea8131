"""Weights that stay as they are for many predictions on a CPU: a group's layers and adapters as one matrix, W + B A,
laid out as oneDNN wants it.

In float32 that changes a log-probability by some 1e-6 nats, as another size of the batch does; in 16 bits W + B A would
be rounded. It is a copy: the parameters stay what they are.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

import psutil
import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from weitiao.engine.lora_gemm import LoraGroup

BYTES = 2 * 2**30
"""Most that they may take: those of a model with half a billion weights do, of one with more a laptop has no room."""
SPARE = 2
"""Times as much as they take has to be free: the rest is for what is computed with them."""


class Settled:
    def __init__(self, group: LoraGroup) -> None:
        """With the adapters as they are now; that they are not trained meanwhile, `current` tells."""
        self.group, self.adapted = group, group.adapted
        weight, b = group.buffer[:, : group.width], group.buffer[:, group.width :]
        self.a, self.b = group.a.clone(), b.clone()
        whole = torch.addmm(weight, b, group.a) if self.adapted else weight.contiguous()
        self.packed = packing()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(whole) if self.packed else whole

    def current(self) -> bool:
        """Whether the group has the same adapters still."""
        b = self.group.buffer[:, self.group.width :]
        return self.adapted == self.group.adapted and self.a.equal(self.group.a) and self.b.equal(b)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [T, in] → [T, sum of out]."""
        if not self.packed:
            return F.linear(x, self.weight, self.group.bias)
        # To this torch compiles `F.linear` of constant weights. Else it calls MKL, which is slower on AMD's processors,
        # and on any with few rows.
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.group.bias, "none", [], "")
        return out


def packing() -> bool:
    """Whether oneDNN is here, in a build that knows this processor well. Torch does not promise its operators."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and platform.machine().lower() in ("x86_64", "amd64")


def room_for(groups: Sequence[LoraGroup]) -> bool:
    """Whether the machine has memory for all of them now."""
    return bool(psutil.virtual_memory().available >= SPARE * _bytes(groups))


def can_settle(groups: Sequence[LoraGroup]) -> bool:
    here = all(group.buffer.device.type == "cpu" and group.buffer.dtype == torch.float32 for group in groups)
    return here and _bytes(groups) <= BYTES


def _bytes(groups: Sequence[LoraGroup]) -> int:
    return sum(group.buffer.nbytes for group in groups)
