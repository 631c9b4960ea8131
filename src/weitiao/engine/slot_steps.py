"""Steps that write all answers on by some tokens, over one cache; on a card each size of step is a CUDA graph."""

from __future__ import annotations

import torch

from weitiao.engine.forward import Forward
from weitiao.engine.graphs import RecordedCall
from weitiao.engine.slots import SlotCache


class Steps:
    """Steps of all answers over one cache; on a card each is recorded, for a few sizes."""

    def __init__(self, forward: Forward, cache: SlotCache, recorded: bool) -> None:
        self.forward, self.cache, self.recorded = forward, cache, recorded
        self._known: dict[tuple[object, ...], _Recorded] = {}
        self._pool = torch.cuda.graph_pool_handle() if recorded else None

    def make_room(self, tokens: int) -> None:
        if self.cache.make_room(tokens):
            self._known.clear()

    def logits(self, told: torch.Tensor, tokens: int) -> torch.Tensor:
        """[B × n, V]. told: int64 [3, B, n], of the new tokens their ids, places and positions. tokens: of the longest
        sequence with them."""
        if not self.recorded:
            return self._computed(told.to(self.forward.device), tokens)
        assert self.forward.fast is not None
        used = self.cache.used(tokens)
        size = (*told.shape, used, self.forward.fast.layers[0].qkv.adapted)
        if size not in self._known:
            self._known[size] = _Recorded(self, told, used, self._pool)
        return self._known[size](told)

    def _computed(self, told: torch.Tensor, tokens: int) -> torch.Tensor:
        ids, places, positions = told
        self.cache.begin(places, None, tokens)
        logits: torch.Tensor = self.forward.head(self.forward.step(ids, positions, self.cache))
        return logits


class _Recorded:
    """A step of fixed size."""

    def __init__(self, steps: Steps, told: torch.Tensor, tokens: int, pool: object) -> None:
        self.steps, self.tokens = steps, tokens
        self.told = told.to(steps.forward.device)
        self.logits = torch.empty(0)
        self._call = RecordedCall(self._compute, pool)

    def __call__(self, told: torch.Tensor) -> torch.Tensor:
        self.told.copy_(told.pin_memory(), non_blocking=True)
        self._call()
        return self.logits

    def _compute(self) -> None:
        self.logits = self.steps._computed(self.told, self.tokens)
