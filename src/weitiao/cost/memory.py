"""The peak of a training in memory: weights, adapters with their gradients and moments, a pack's activations, logits.

It is torch's peak of allocated memory. What the engine would do is asked of the engine's own rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from weitiao.config import RunConfig
from weitiao.cost.machine import GIB, Machine
from weitiao.cost.model import Model
from weitiao.cost.work import Work
from weitiao.engine.room import (
    COPIES,
    DEFAULT,
    SAFETY,
    Fit,
    Recompute,
    chosen,
    for_activations,
    left_to_transformers,
    recorded,
)
from weitiao.errors import ModelError
from weitiao.model.placement import ROOM as BESIDE_WEIGHTS
from weitiao.model.placement import Kind, decide, sizes_of

WORKSPACE = 2 * 32 * 2**20
"""Bytes that torch keeps for cuBLAS on a card: 32 MiB on Hopper, for the thread of the forward and of the backward
pass. Older cards take less."""


@dataclass(frozen=True)
class Memory:
    peak: int
    """Bytes, as the engine would do it."""
    without: int
    """With nothing computed again, and packs as large as they would be with memory enough."""
    again: int
    """The same packs with whole layers computed again."""
    available: int | None
    """Bytes for all that; None when it is not known."""
    fit: Fit
    placement: Kind
    ours: bool
    """Whether layers are the engine's own."""
    fits: bool


def memory(config: RunConfig, model: Model, work: Work, machine: Machine) -> Memory:
    size = _size(config, machine)
    model = replace(model, widths=replace(model.widths, size=size))
    available = None if machine.gib is None else int(machine.gib * GIB)
    sizes = sizes_of(model.shapes, size)
    placement, placed = _placed(config, sizes, available, machine)
    half = config.model.dtype == "float16" or (config.model.dtype == "auto" and not machine.kernels)
    ours = config.engine.packing and config.engine.fast_layer and placement != "nf4" and not half
    weights = sizes["nf4" if placement == "nf4" else "one"] + (model.widths.copied if ours else 0)
    weights += 0 if machine.cpu else WORKSPACE
    reckoned = _Reckoned(config, model, work, weights, machine.cpu, ours)
    free = available - weights - 4 * model.trained if available is not None else None
    fit = reckoned.fit(free)
    peaks = [reckoned.peak(fit.recompute, fit.tokens), reckoned.peak("nothing", reckoned.wanted)]
    peaks.append(reckoned.peak("layer", reckoned.wanted))
    fits = placed and (available is None or peaks[0] <= available)
    return Memory(peaks[0], peaks[1], peaks[2], available, fit, placement, ours, fits)


def _size(config: RunConfig, machine: Machine) -> int:
    """Bytes of a weight that is not in 4 bits."""
    return {"auto": 4 if machine.cpu else 2, "float32": 4}.get(config.model.dtype, 2)


def _placed(config: RunConfig, sizes: dict[str, int], available: int | None, machine: Machine) -> tuple[Kind, bool]:
    """How the weights lie on one such machine, and whether they fit."""
    if machine.cpu or available is None:
        return "one", True
    wanted = "auto" if config.model.placement == "spread" else config.model.placement
    rooms: Sequence[int] = [max(0, available - BESIDE_WEIGHTS)]
    try:
        return decide(wanted, sizes, rooms, 0, has_nf4=True), True
    except ModelError:
        return "nf4", False


class _Reckoned:
    def __init__(self, config: RunConfig, model: Model, work: Work, weights: int, cpu: bool, ours: bool) -> None:
        self.config, self.model, self.work, self.cpu, self.ours = config, model, work, cpu, ours
        self.fixed = weights + 4 * model.trained * (1 + COPIES)
        self.asked = config.engine.tokens_per_pack
        self.wanted = self.asked or DEFAULT["cuda" if ours and not cpu else "cpu"]

    def fit(self, free: float | None) -> Fit:
        setting = self.config.training.gradient_checkpointing
        if setting != "auto" or self.cpu or free is None:
            return Fit(self.wanted, "layer" if setting == "on" else "nothing")
        if not self.ours:
            again = self._kept_by_theirs(self.wanted) > SAFETY * free
            return Fit(self.wanted, "layer" if again else "nothing")
        widths = self.model.widths
        room = for_activations(free, self.model.trained, widths.logits(self.work.reads))
        return chosen(lambda kind: (widths.per_token(kind), max(room, 0)), self.asked, self.wanted, self.work.longest)

    def peak(self, kind: Recompute, tokens: int) -> int:
        """With packs of so many tokens, as they are recorded."""
        if not self.ours:
            return self._theirs(kind, tokens)
        own, read = self.work.largest_pack(tokens)
        graphs = self.config.engine.cuda_graphs and not self.cpu
        total = self.work.prefix + (recorded(own) if graphs else own)
        return self.fixed + self.model.widths.activations(kind, total, read)

    def _theirs(self, kind: Recompute, tokens: int) -> int:
        """The same where layers are left to transformers."""
        widths = self.model.widths
        own, read = self.work.largest_pack(tokens)
        tokens = self.work.prefix + own
        kept = self._kept_by_theirs(tokens)
        if kind == "layer":
            kept = kept // widths.layers + widths.size * widths.hidden * widths.layers * tokens
        return self.fixed + kept + 2 * widths.logits(read)

    def _kept_by_theirs(self, tokens: int) -> int:
        widths = self.model.widths
        return left_to_transformers(widths.hidden, widths.inner, widths.layers, tokens) * widths.size // 2
