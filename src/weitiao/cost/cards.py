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
    "5090": Kind("GeForce RTX 5090", 32, 209.5, (12, 0), "NVIDIA RTX Blackwell whitepaper"),
    "a10": Kind("A10", 24, 125, (8, 6), "NVIDIA A10 data sheet"),
    "a40": Kind("A40", 48, 149.7, (8, 6), "NVIDIA A40 data sheet"),
    "a100": Kind("A100 40GB", 40, 312, (8, 0), "NVIDIA A100 data sheet"),
    "a100-80": Kind("A100 80GB", 80, 312, (8, 0), "NVIDIA A100 data sheet"),
    "a800": Kind("A800 80GB", 80, 312, (8, 0), "NVIDIA A800 data sheet"),
    "a6000": Kind("RTX A6000", 48, 154.8, (8, 6), "NVIDIA Ampere GA102 whitepaper"),
    "h20": Kind("H20", 96, 148, (9, 0), "NVIDIA H20 data sheet"),
    "h100": Kind("H100 80GB", 80, 989, (9, 0), "NVIDIA H100 data sheet, SXM", measured=True),
    "h200": Kind("H200", 141, 989, (9, 0), "NVIDIA H200 data sheet, SXM", measured=True),
    "h800": Kind("H800 80GB", 80, 989, (9, 0), "NVIDIA H800 data sheet, SXM"),
    "l4": Kind("L4", 24, 121, (8, 9), "NVIDIA L4 data sheet"),
    "l20": Kind("L20", 48, 119.5, (8, 9), "NVIDIA L20 data sheet"),
    "l40": Kind("L40", 48, 181, (8, 9), "NVIDIA L40 data sheet"),
    "l40s": Kind("L40S", 48, 362, (8, 9), "NVIDIA L40S data sheet"),
    "p100": Kind("P100", 16, 18.7, (6, 0), "NVIDIA P100 data sheet, PCIe"),
    "t4": Kind("T4", 16, 65, (7, 5), "NVIDIA T4 data sheet"),
    "v100": Kind("V100 16GB", 16, 125, (7, 0), "NVIDIA V100 data sheet, SXM2"),
    "v100-32": Kind("V100 32GB", 32, 125, (7, 0), "NVIDIA V100 data sheet, SXM2"),
}
"""The choices of `--gpu`, besides `cpu`."""
OTHERS = {"laptop", "max", "d", "ti", "pcie", "nvl"}
"""Words that make another card of a name, of another rate; an A100, an A800 and a P100 on PCIe are meant here."""
PCIE = {"a100", "a800", "p100"}


def known(name: str, gib: float) -> Kind | None:
    """The kind of a card that a driver calls `NVIDIA H100 80GB HBM3`, or the like; None when no line is about it."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    alike = [kind for key, kind in KINDS.items() if key.partition("-")[0] in words]
    if words & (OTHERS - ({"pcie"} if words & PCIE else set())):
        return None
    return min(alike, key=lambda kind: abs(kind.gb - gib), default=None)


def called(name: str) -> Kind | None:
    """The kind that a user means: a key, or the words of a name, such as `RTX 4090`, `A100 80GB` or `nvidia-l4`. Of
    several sizes it is the smallest, unless the name says one."""
    name = name.strip().lower()
    size = re.search(r"\b(\d+) ?gi?b?\b", name)
    return KINDS.get(name) or known(name, float(size[1]) if size else 0)
