"""What is known of a machine: plain values, without secrets, user names and home paths, so that they can be pasted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Driver:
    """NVIDIA's, as `nvidia-smi` tells it."""

    version: str | None = None
    cuda: str | None = None
    """Newest CUDA version that it supports, such as `12.4`."""
    error: str | None = None
    """Why there is a `nvidia-smi` that tells nothing; None without one, too."""


@dataclass(frozen=True)
class Card:
    name: str
    memory_gib: float | None = None
    capability: str | None = None
    """Such as `8.0`; None where neither the driver nor torch says it."""


@dataclass(frozen=True)
class Torch:
    """As a process of its own has seen it."""

    version: str | None = None
    """None: not installed."""
    error: str | None = None
    """What its import said, in one line."""
    cuda: str | None = None
    """Version that it was built for; None for other builds."""
    hip: str | None = None
    """AMD's, likewise."""
    cards: int = 0
    """Those that it can use."""
    architectures: tuple[str, ...] = ()
    """Of cards that it has kernels for, such as `sm_80`."""
    mps: bool = False
    """Whether it can use Apple's GPU."""


@dataclass(frozen=True)
class Disk:
    holds: str
    path: str
    free_gib: float
    total_gib: float


@dataclass(frozen=True)
class Site:
    """A server that models or packages come from."""

    name: str
    host: str
    reachable: bool | None = None
    """None: not asked, as something says `offline`."""
    told: str = ""
    """What it answered, or why it was not asked."""


@dataclass(frozen=True)
class Facts:
    system: str
    """`Linux`, `Darwin` or `Windows`, as Python names them."""
    platform: str = ""
    python: str = ""
    processor: str = ""
    cores: int | None = None
    memory_gib: float | None = None
    driver: Driver | None = None
    """None: no `nvidia-smi` here."""
    cards: tuple[Card, ...] = ()
    torch: Torch = Torch()
    disks: tuple[Disk, ...] = ()
    sites: tuple[Site, ...] = ()
    trackers: Mapping[str, str | None] = field(default_factory=dict)
    """Name → version; None: not installed."""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """Of Weitiao and the libraries that it stands on."""
    needed: Mapping[str, str] = field(default_factory=dict)
    """Library → the oldest version that Weitiao takes."""


def numbers(version: str) -> tuple[int, ...]:
    """`2.11.0+cu128` → (2, 11, 0): for comparisons."""
    found: list[int] = []
    for part in version.partition("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        found.append(int(digits))
    return tuple(found)
