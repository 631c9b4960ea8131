"""K/V of sequences that are being written, each in a slot of fixed size, so that a step always computes on the same
addresses: a sequence that has ended leaves its slot to the next, and on a card a step can be one CUDA graph. Kernels of
our own (`slot_attention`) find a sequence in any slot; torch's read the slots that a step is about one behind another.

    slot 0   P P P P a a a a a · · · · ×      P   the shared prefix, the same in every slot
    slot 1   P P P P b b · · · · · · · ×      a,b prompt and answer; a token sees what stands before it
    slot 2   P P P P · · · · · · · · · ×      ×   where padding goes

What stands behind a sequence's last token is overwritten before any token sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from weitiao.engine.grouped import grouped_bias, grouped_sdpa
from weitiao.engine.split_attention import Heads

ROUNDED = 64
"""Tokens of a slot are a multiple of this, which SDPA's kernels want of a mask."""


class SlotCache:
    """In the place of transformers' caches, of which it has what decoders ask for."""

    is_compileable = False

    def __init__(self, slots: int, tokens: int) -> None:
        """tokens: of a sequence, its prefix among them; `make_room` lets it be more."""
        self.slots, self.length = slots, _rounded(tokens + 1)
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._step: _Step | None = None

    @property
    def scrap(self) -> int:
        """Place in a slot for what belongs to no sequence."""
        return self.length - 1

    def begin(self, places: torch.Tensor, slots: torch.Tensor | None, tokens: int) -> None:
        """The step to come has the tokens of int64 [B, n] places, in these slots [B], or in all of the first B. tokens:
        of the longest sequence with them; attention looks no further."""
        self._step = _Step(places.contiguous(), slots, self.length, self.used(tokens))

    def used(self, tokens: int) -> int:
        """Places of a slot that are looked at where the longest sequence has so many tokens."""
        return min(self.length, _rounded(tokens))

    def share(self, tokens: int) -> None:
        """Give all slots the first tokens of slot 0."""
        for kept in (*self._keys, *self._values):
            kept[1:, :tokens] = kept[:1, :tokens]

    def move(self, slots: Sequence[int], tokens: int) -> None:
        """Put the sequences of these slots, of at most so many tokens, into the first slots."""
        for kept in (*self._keys, *self._values):
            kept[: len(slots), :tokens] = kept[slots, :tokens]

    def make_room(self, tokens: int) -> bool:
        """Let sequences be of so many tokens; whether everything was moved for it."""
        if tokens < self.length:
            return False
        self.length = _rounded(max(tokens + 1, 3 * self.length // 2))
        for part in (self._keys, self._values):
            for at, kept in enumerate(part):
                part[at] = kept.new_zeros(self.slots, self.length, *kept.shape[2:])
                part[at][:, : kept.shape[1]] = kept
        return True

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V of the step's tokens [B, Hk, n, D] → those of their slots [B, Hk, used, D]."""
        assert self._step is not None
        step = self._step.on(keys.device)
        whole = []
        for kept, new in zip(self._kept(layer, keys, keys.shape[1], keys.shape[3]), (keys, values), strict=True):
            kept.flatten(0, 1).index_copy_(0, step.flat, new.transpose(1, 2).flatten(0, 1))
            part = kept[:, : step.used]
            part = part[: len(step.places)] if step.slots is None else part[step.slots]
            whole.append(part.transpose(1, 2))
        return whole[0], whole[1]

    def attended(
        self, qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: Heads, layer: int, pad: int, kernels: Any
    ) -> torch.Tensor:
        """The same and the attention, by kernels of our own: [B · n, (H + 2 Hk) D], not rotated → [B · n, H D + pad].
        The step has named its slots."""
        assert self._step is not None
        assert self._step.slots is not None
        where = self._step.places, self._step.slots, *self._kept(layer, qkv, heads.key, heads.size)
        kernels.slot_attention.keep(qkv, cos, sin, heads.interleaved, *where)
        out: torch.Tensor = kernels.slot_attention.attend(qkv, *where, heads.scaling, pad)
        return out

    def _kept(self, layer: int, like: torch.Tensor, heads: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """[slots, length, heads, size] of a layer's keys and values, which begin as zeros."""
        if layer == len(self._keys):
            for part in (self._keys, self._values):
                part.append(like.new_zeros(self.slots, self.length, heads, size))
        return self._keys[layer], self._values[layer]

    def bias(self, groups: int, like: torch.Tensor) -> torch.Tensor:
        """For the step's queries, `groups` heads beside each other: [B, 1, groups × n, used], 0 where one looks."""
        assert self._step is not None
        return self._step.on(like.device).bias(groups, like.dtype)

    def get_seq_length(self, layer: int = 0) -> int:
        return 0


def _rounded(tokens: int) -> int:
    return -(-tokens // ROUNDED) * ROUNDED


class _Step:
    def __init__(self, places: torch.Tensor, slots: torch.Tensor | None, length: int, used: int) -> None:
        self.places, self.slots, self.length, self.used = places, slots, length, used
        self._bias: dict[tuple[int, torch.dtype], torch.Tensor] = {}
        self._elsewhere: dict[torch.device, _Step] = {}

    @cached_property
    def flat(self) -> torch.Tensor:
        """Of the tokens, in the slots one behind another."""
        first = torch.arange(len(self.places), device=self.places.device) if self.slots is None else self.slots
        return (first[:, None] * self.length + self.places).flatten()

    def on(self, device: torch.device) -> _Step:
        """The same on another device of a model that is spread over several."""
        if device == self.places.device:
            return self
        if device not in self._elsewhere:
            slots = None if self.slots is None else self.slots.to(device)
            self._elsewhere[device] = _Step(self.places.to(device), slots, self.length, self.used)
        return self._elsewhere[device]

    def bias(self, groups: int, dtype: torch.dtype) -> torch.Tensor:
        if (groups, dtype) not in self._bias:
            seen = torch.arange(self.used, device=self.places.device) <= self.places[:, None, :, None]
            self._bias[groups, dtype] = grouped_bias(seen, dtype, groups)
        return self._bias[groups, dtype]


@dataclass
class SlotPlan:
    """How a step's tokens attend: each to what its slot holds up to itself."""

    cache: SlotCache
    rows: int = 0
    """B where layers of our own ask, who leave it to the plan to keep K and V; transformers' own have done so."""
    index: int = 0
    """Of the layer."""
    kernels: Any = None
    """Of the layers that ask, where these have attention over slots of their own."""
    split: None = None

    def layer(self, index: int) -> SlotPlan:
        return replace(self, index=index)

    def attended(self, qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: Heads, pad: int) -> torch.Tensor:
        """By `kernels`: as `SlotCache.attended`."""
        return self.cache.attended(qkv, cos, sin, heads, self.index, pad, self.kernels)

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        """query [B, H, n, D]; key, value [B, Hk, used, D] → [B, n, H, D]; or, by layers of our own,
        [1, H, B · n, D] and key, value of the new tokens alone → [1, B · n, H, D]."""
        if self.rows:
            query, key, value = (x[0].unflatten(1, (self.rows, -1)).transpose(0, 1) for x in (query, key, value))
            key, value = self.cache.update(key, value, self.index)
        bias = self.cache.bias(query.shape[1] // key.shape[1], query)
        out = grouped_sdpa(query, key, value, bias, scaling).transpose(1, 2)
        return out.flatten(0, 1)[None] if self.rows else out
