"""Steps that write answers on by some tokens, and prompts that are read in pieces, over one cache; on a card each size
is a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from weitiao.engine.forward import Forward
from weitiao.engine.graphs import RecordedCall
from weitiao.engine.slots import SlotCache

WIDE = 4
"""Tokens of an answer that a step with guesses takes."""
SIZES = (1, 4, 16, 32, 64, 128, 256, 512)
"""Sequences of a recorded step: few sizes, for each takes as long to record as dozens of steps."""
READ = 4
"""Readings of a size before it is recorded, which few prompts are not worth."""


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
        inputs = [told] if slots is None else [told, slots]
        if not self.recorded:
            return self._logits(tokens, *(x.to(self.forward.device) for x in inputs))
        # Kernels of our own look no further than a sequence is long.
        used = self.cache.used(tokens) if slots is None else self.cache.length
        # Behind the first all kernels are there, and nothing need be computed to record.
        return self._recorded(lambda *given: self._logits(used, *given), inputs, used, plain=0 if self._known else 1)

    def read(self, told: torch.Tensor, slots: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Hidden states [N, H] of the tokens `keep`, int64 [N], of the flattened B × n, where steps are recorded and
        find sequences in any slots; the others as for `logits`. Several rows may be pieces of one sequence."""
        return self._recorded(self._states, [told, slots, keep], 0, plain=READ)

    def _recorded(
        self, compute: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], used: int, plain: int
    ) -> torch.Tensor:
        assert self.forward.fast is not None
        size = (*(x.shape for x in inputs), used, self.forward.fast.layers[0].qkv.adapted)
        if size not in self._known:
            self._known[size] = _Recorded(compute, inputs, self.forward.device, self._pool, plain)
        return self._known[size](inputs)

    def _logits(self, tokens: int, told: torch.Tensor, slots: torch.Tensor | None = None) -> torch.Tensor:
        ids, places, positions = told
        self.cache.begin(places, slots, tokens)
        return self.forward.logits(self.forward.step(ids, positions, self.cache))

    def _states(self, told: torch.Tensor, slots: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        ids, places, positions = told
        self.cache.begin(places, slots, self.cache.length)
        return self.forward.step(ids, positions, self.cache, keep)


class _Recorded:
    """What is computed of inputs of fixed sizes."""

    def __init__(
        self,
        compute: Callable[..., torch.Tensor],
        inputs: Sequence[torch.Tensor],
        device: torch.device,
        pool: object,
        plain: int,
    ) -> None:
        self.compute, self.inputs = compute, [x.to(device) for x in inputs]
        self.out = torch.empty(0)
        self._call = RecordedCall(self._compute, pool, plain)

    def __call__(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        for there, given in zip(self.inputs, inputs, strict=True):
            there.copy_(given.pin_memory(), non_blocking=True)
        self._call()
        return self.out

    def _compute(self) -> None:
        self.out = self.compute(*self.inputs)
