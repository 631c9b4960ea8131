"""Cards by name. To add one, write a line with the figures of its data sheet.

Rates are those of dense matrix products in bfloat16 (float16 before sm80), summed in float32. Data sheets often print
twice as much, "with sparsity".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

USABLE = 0.93
"""Share of a data sheet's memory that programs get; the rest is for error correction and the driver (reckoned)."""
OLDEST = (8, 0)
"""Capability from which on the engine's own kernels are used; older cards take the plain path."""


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    gb: int
    """GiB, as memory is sold."""
    tflops: float
    capability: tuple[int, int]
    source: str
    measured: bool = False
    """Whether this engine was measured on it (docs/speed.md)."""

    @property
    def gib(self) -> float:
        return USABLE * self.gb


KINDS = {
    "3090": Kind("GeForce RTX 3090", 24, 71, (8, 6), "NVIDIA Ampere GA102 whitepaper"),
    "4090": Kind("GeForce RTX 4090", 24, 165.2, (8, 9), "NVIDIA Ada whitepaper"),
    "a10": Kind("A10", 24, 125, (8, 6), "NVIDIA A10 data sheet"),
    "a100": Kind("A100 40GB", 40, 312, (8, 0), "NVIDIA A100 data sheet"),
    "a100-80": Kind("A100 80GB", 80, 312, (8, 0), "NVIDIA A100 data sheet"),
    "h100": Kind("H100 80GB", 80, 989, (9, 0), "NVIDIA H100 data sheet, SXM", measured=True),
    "h200": Kind("H200", 141, 989, (9, 0), "NVIDIA H200 data sheet, SXM"),
    "l4": Kind("L4", 24, 121, (8, 9), "NVIDIA L4 data sheet"),
    "t4": Kind("T4", 16, 65, (7, 5), "NVIDIA T4 data sheet"),
    "v100": Kind("V100 16GB", 16, 125, (7, 0), "NVIDIA V100 data sheet, SXM2"),
}
"""The choices of `--gpu`, besides `cpu`."""
OTHERS = {"laptop", "max", "d", "ti", "pcie", "nvl"}
"""Words that make another card of a name, of another rate; an A100 on PCIe has the same."""


def known(name: str, gib: float) -> Kind | None:
    """The kind of a card that a driver calls `NVIDIA H100 80GB HBM3`, or the like; None when no line is about it."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    alike = [kind for key, kind in KINDS.items() if key.partition("-")[0] in words]
    if words & (OTHERS - ({"pcie"} if "a100" in words else set())):
        return None
    return min(alike, key=lambda kind: abs(kind.gb - gib), default=None)
