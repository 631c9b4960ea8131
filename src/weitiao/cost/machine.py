"""What a cost is reckoned for."""

from __future__ import annotations

import os
from dataclasses import dataclass

from weitiao.config import ModelSection, nearest
from weitiao.cost import at_hand
from weitiao.cost.cards import KINDS, OLDEST, Kind, called, known
from weitiao.errors import ConfigError
from weitiao.training.on_cpu import PRODUCT, best_rate

CONTEXT = 0.6
"""GiB that CUDA takes of a card for itself and for loaded kernels (reckoned)."""
GIB = 2**30


@dataclass(frozen=True)
class Machine:
    name: str
    gib: float | None
    """For weights and all else; None when it is not known."""
    flops: float | None
    """Operations a second in large products; None when it is not known."""
    rate_from: str
    """Where that is from."""
    cpu: bool = False
    kernels: bool = True
    """Whether the engine's own are used."""
    measured: bool = False
    """Whether training was measured on one."""


def machine_of(gpu: str | None, section: ModelSection) -> Machine | None:
    """The machine that `--gpu` names, or else the one at hand; None when the config wants a card and none is here.

    Raises ConfigError for a name that is not in the table.
    """
    if gpu is not None:
        return named(gpu)
    if section.device != "cpu" and (card := at_hand.card()) is not None:
        kind = known(card.name, card.gib)
        return Machine(card.name, card.gib - CONTEXT, None, "") if kind is None else _of(kind, card.gib, card.name)
    return None if section.device == "cuda" else this_cpu()


def named(gpu: str) -> Machine:
    key = gpu.lower().strip()
    if key == "cpu":
        return this_cpu()
    kind = called(key)
    if kind is None:
        hint = nearest(key, KINDS)
        raise ConfigError(
            f"--gpu {gpu}: no such card in the table"
            + (f"; did you mean {hint}?" if hint else "")
            + f" (choices: {', '.join([*KINDS, 'cpu'])})"
        )
    return _of(kind, kind.gib, kind.name)


def _of(kind: Kind, gib: float, name: str) -> Machine:
    return Machine(
        name, gib - CONTEXT, kind.tflops * 1e12, kind.source, kernels=kind.capability >= OLDEST, measured=kind.measured
    )


def this_cpu() -> Machine:
    """Its rate is that of numpy's product in float32, which is there in a moment; torch's own is near it."""
    import numpy as np

    rows, width, out = PRODUCT
    left, right = np.ones((rows, width), np.float32), np.ones((width, out), np.float32)
    rate = best_rate(lambda: left @ right)
    return Machine("CPU", _memory(), rate, "numpy's product in float32, measured here", cpu=True)


def _memory() -> float | None:
    """GiB of this machine."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return None
