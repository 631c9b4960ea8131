"""Who attends to whom in a pack, and which of four ways computes it; for transformers, one attention function.

Each token of a row sees the shared prefix and its own row up to itself; in a tree of answers it sees its ancestors.

    rows     every row a batch entry, with rows of about its length: prefix K/V expanded, own K/V gathered, one
             bottom-right causal mask. Any device.
    varlen   torch's variable-length kernel over gathered [prefix | row] K/V. CUDA, 16-bit.
    split    kernels of our own, or rows and prefix apart (`split_attention`), by layers of our own only; elsewhere as
             `varlen`, or in float32 and with trees as `rows`. CUDA.
    dense    one T × T mask: the oracle, quadratic in the pack.

The plan travels as the keyword `attention_plan` through the model's forward to `_attention`; the name is unknown to
transformers' mask builders, so none is made there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, Literal

import torch

from weitiao.data.collate import Batch
from weitiao.engine.attention_ways import Dense, Rows, Varlen
from weitiao.engine.room import GRAIN
from weitiao.engine.slots import SlotPlan
from weitiao.engine.split_attention import HALF, LONGEST_TREE, SplitLayout, split_layout
from weitiao.errors import ConfigError

NAME = "weitiao"
OLDEST = (8, 0)
"""Compute capability from which on the flash kernel runs."""
Way = Literal["rows", "varlen", "split", "dense"]


def choose_way(wanted: str, device: torch.device, dtype: torch.dtype) -> Way:
    """The way for `engine.attention`; ConfigError when it cannot run here."""
    recent = device.type == "cuda" and torch.cuda.get_device_capability(device) >= OLDEST
    able = recent and (wanted != "varlen" or dtype in HALF)
    if wanted in ("varlen", "split") and not able:
        needed = "a card of compute capability 8.0 (Ampere) or newer" + (" and bfloat16" if wanted == "varlen" else "")
        raise ConfigError(
            f'key `engine.attention` = "{wanted}" needs CUDA with {needed}, not {device.type} and {dtype}; use "auto"'
        )
    if wanted == "auto":
        return "split" if able else "rows"
    return wanted  # type: ignore[return-value]


@dataclass
class AttentionPlan:
    """Plan of one pack of T = prefix + sum(lengths) tokens."""

    prefix: int
    lengths: tuple[int, ...]
    parents: tuple[tuple[int, ...] | None, ...]
    device: torch.device
    way: Way = "rows"
    _elsewhere: dict[torch.device, AttentionPlan] = field(default_factory=dict)
    """The same plan on the other devices of a model that is spread over several."""

    @classmethod
    def of(cls, batch: Batch, way: Way = "rows") -> AttentionPlan:
        found = cls(batch.prefix_length, batch.lengths, batch.parents, batch.input_ids.device, way)
        if not found.tree or way == "dense":
            return found
        # torch's kernels know causal rows only.
        able = way == "split" and max((found.prefix, *found.lengths)) <= LONGEST_TREE
        return found if able else replace(found, way="rows")

    @property
    def tree(self) -> bool:
        """Whether a row is one."""
        return any(parents is not None for parents in self.parents)

    @cached_property
    def split(self) -> SplitLayout | None:
        """How the kernels are called, where that is the way."""
        if self.way != "split":
            return None
        layout = split_layout(self.prefix, self.lengths, parents=self.parents)
        return replace(layout, flash=layout.flash and sum(self.lengths) % GRAIN == 0).to(self.device)

    def layer(self, index: int) -> AttentionPlan:
        """The same for all layers."""
        return self

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        """query [1, H, T, D]; key, value [1, Hk, T, D] → [1, T, H, D]."""
        if query.device != self.device:
            if query.device not in self._elsewhere:
                self._elsewhere[query.device] = replace(self, device=query.device, _elsewhere={})
            return self._elsewhere[query.device].attend(query, key, value, scaling)
        if self.way == "dense":
            return self._dense(query, key, value, scaling)
        flash = self.way != "rows" and query.dtype in HALF and not self.tree
        return (self._varlen if flash else self._rows)(query, key, value, scaling)

    @cached_property
    def _rows(self) -> Rows:
        return Rows(self.prefix, self.lengths, self.parents, self.device)

    @cached_property
    def _varlen(self) -> Varlen:
        return Varlen(self.prefix, self.lengths, self.device)

    @cached_property
    def _dense(self) -> Dense:
        return Dense(self.prefix, self.lengths, self.parents, self.device)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    attention_plan: AttentionPlan | SlotPlan | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    if attention_plan is None:
        raise RuntimeError("a model set to Weitiao's attention was called without `attention_plan`")
    return attention_plan.attend(query, key, value, scaling or query.shape[-1] ** -0.5), None


@cache
def register() -> None:
    """Let transformers' layers know the function by NAME."""
    from transformers import AttentionInterface  # takes seconds to import

    AttentionInterface.register(NAME, _attention)
