"""Steps that write answers on by some tokens, over one cache; on a card each size of step is a CUDA graph."""

from __future__ import annotations

import torch

from weitiao.engine.forward import Forward
from weitiao.engine.graphs import RecordedCall
from weitiao.engine.slots import SlotCache

WIDE = 4
"""Tokens of an answer that a step with guesses takes."""
SIZES = (1, 4, 16, 32, 64, 128, 256, 512)
"""Sequences of a recorded step: few sizes, for each takes as long to record as dozens of steps."""


class Steps:
    """Steps over one cache; on a card each is recorded, for a few sizes."""

    def __init__(self, forward: Forward, cache: SlotCache, recorded: bool) -> None:
        self.forward, self.cache, self.recorded = forward, cache, recorded
        self._known: dict[tuple[object, ...], _Recorded] = {}
        self._pool = torch.cuda.graph_pool_handle() if recorded else None

    def size(self, sequences: int) -> int:
        """Of a step that is about so many sequences."""
        return next((size for size in SIZES if size >= sequences), sequences) if self.recorded else sequences

    def make_room(self, tokens: int) -> None:
        if self.cache.make_room(tokens):
            self._known.clear()

    def logits(self, told: torch.Tensor, slots: torch.Tensor | None, tokens: int) -> torch.Tensor:
        """[B × n, V]. told: int64 [3, B, n], of the new tokens their ids, places and positions. slots: int64 [B], as
        `SlotCache.begin` takes them. tokens: of the longest sequence with them."""
        if not self.recorded:
            device = self.forward.device
            return self._computed(told.to(device), None if slots is None else slots.to(device), tokens)
        assert self.forward.fast is not None
        # Kernels of our own look no further than a sequence is long.
        used = self.cache.used(tokens) if slots is None else self.cache.length
        size = (*told.shape, used, self.forward.fast.layers[0].qkv.adapted)
        if size not in self._known:
            # Behind the first all kernels are there, and nothing need be computed to record.
            self._known[size] = _Recorded(self, told, slots, used, self._pool, called=bool(self._known))
        return self._known[size](told, slots)

    def _computed(self, told: torch.Tensor, slots: torch.Tensor | None, tokens: int) -> torch.Tensor:
        ids, places, positions = told
        self.cache.begin(places, slots, tokens)
        return self.forward.logits(self.forward.step(ids, positions, self.cache))


class _Recorded:
    """A step of fixed size."""

    def __init__(
        self, steps: Steps, told: torch.Tensor, slots: torch.Tensor | None, tokens: int, pool: object, called: bool
    ) -> None:
        self.steps, self.tokens = steps, tokens
        device = steps.forward.device
        self.told, self.slots = told.to(device), None if slots is None else slots.to(device)
        self.logits = torch.empty(0)
        self._call = RecordedCall(self._compute, pool, called)

    def __call__(self, told: torch.Tensor, slots: torch.Tensor | None) -> torch.Tensor:
        self.told.copy_(told.pin_memory(), non_blocking=True)
        if self.slots is not None and slots is not None:
            self.slots.copy_(slots.pin_memory(), non_blocking=True)
        self._call()
        return self.logits

    def _compute(self) -> None:
        self.logits = self.steps._computed(self.told, self.slots, self.tokens)
