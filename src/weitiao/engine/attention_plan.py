"""Who attends to whom in a pack, and four ways to compute it, for transformers' layers as one attention function.

Each token of a row sees the shared prefix and its own row up to itself; in a tree of answers it sees its ancestors.

    rows     every row a batch entry: prefix K/V expanded, own K/V gathered, one bottom-right causal mask. Any device.
    varlen   torch's variable-length kernel over gathered [prefix | row] K/V. CUDA, 16-bit.
    split    kernels of our own, or rows and prefix apart (`split_attention`), by layers of our own only; elsewhere as
             `varlen`, or in float32 and with trees as `rows`. CUDA.
    dense    one T × T mask: the oracle, quadratic in the pack.

The plan travels as the keyword `attention_plan` through the model's forward to `_attention`; the name is unknown to
transformers' mask builders, so none is made there.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, Literal

import torch
from torch.nn import functional as F

from weitiao.data.collate import Batch
from weitiao.engine.grouped import grouped_bias, grouped_sdpa
from weitiao.engine.room import GRAIN
from weitiao.engine.slots import SlotPlan
from weitiao.engine.split_attention import HALF, SHORT, SplitLayout, split_layout
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
    _bias: dict[tuple[str, torch.dtype], torch.Tensor] = field(default_factory=dict)
    _elsewhere: dict[torch.device, AttentionPlan] = field(default_factory=dict)
    """The same plan on the other devices of a model that is spread over several."""

    @classmethod
    def of(cls, batch: Batch, way: Way = "rows") -> AttentionPlan:
        found = cls(batch.prefix_length, batch.lengths, batch.parents, batch.input_ids.device, way)
        # The flash kernel knows causal rows only, and so do our own of long ones.
        short = way == "split" and max((found.prefix, *found.lengths)) <= SHORT
        return replace(found, way="rows") if found.tree and way != "dense" and not short else found

    @property
    def tree(self) -> bool:
        """Whether a row is one."""
        return any(parents is not None for parents in self.parents)

    @cached_property
    def split(self) -> SplitLayout | None:
        """How the kernels are called, where that is the way and one of them takes such a pack."""
        if self.way != "split":
            return None
        layout = split_layout(self.prefix, self.lengths, parents=self.parents)
        layout = replace(layout, flash=layout.flash and sum(self.lengths) % GRAIN == 0)
        return layout.to(self.device) if layout.flash or len(layout.blocks) else None

    def layer(self, index: int) -> AttentionPlan:
        """The same for all layers."""
        return self

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        """query [1, H, T, D]; key, value [1, Hk, T, D] → [1, T, H, D]."""
        if query.device != self.device:
            if query.device not in self._elsewhere:
                self._elsewhere[query.device] = replace(self, device=query.device, _bias={}, _elsewhere={})
            return self._elsewhere[query.device].attend(query, key, value, scaling)
        flash = self._varlen if query.dtype in HALF and not self.tree else self._rows
        compute = {"rows": self._rows, "dense": self._dense}.get(self.way, flash)
        return compute(query, key, value, scaling)

    # -- rows

    def _rows(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        groups, dtype = query.shape[1] // key.shape[1], query.dtype
        own = grouped_sdpa(
            self._gather(query),
            self._with_prefix(key),
            self._with_prefix(value),
            self._own_bias(dtype, groups),
            scaling,
        )
        own = own.transpose(1, 2).flatten(0, 1)[self._valid]
        if not self.prefix:
            return own[None]
        q, k, v = (x[:, :, : self.prefix] for x in (query, key, value))
        shared = grouped_sdpa(q, k, v, self._prefix_bias(dtype, groups), scaling)
        return torch.cat([shared.transpose(1, 2), own[None]], dim=1)

    def _gather(self, x: torch.Tensor) -> torch.Tensor:
        """[1, H, T, D] → the rows' own tokens [R, H, S, D], padded with some token that nobody sees."""
        rows, width = self._index.shape
        return x[0].index_select(1, self._index.flatten()).unflatten(1, (rows, width)).transpose(0, 1)

    def _with_prefix(self, x: torch.Tensor) -> torch.Tensor:
        own = self._gather(x)
        shared = x[:, :, : self.prefix].expand(own.shape[0], -1, -1, -1)
        return torch.cat([shared, own], dim=2)

    @cached_property
    def _index(self) -> torch.Tensor:
        """[R, S] → place of each row's tokens in the pack."""
        index = torch.zeros(len(self.lengths), max(self.lengths), dtype=torch.long)
        start = self.prefix
        for at, length in enumerate(self.lengths):
            index[at, :length] = torch.arange(start, start + length)
            start += length
        return index.to(self.device)

    @cached_property
    def _valid(self) -> torch.Tensor:
        """Places in the flattened [R × S] that hold a token, in the pack's order."""
        width = max(self.lengths)
        places = [torch.arange(at * width, at * width + length) for at, length in enumerate(self.lengths)]
        return torch.cat(places).to(self.device)

    def _own_bias(self, dtype: torch.dtype, groups: int) -> torch.Tensor:
        """[groups × S, prefix + S], or [R, 1, groups × S, prefix + S] with trees; 0 where a token may look.

        Padding needs no mask of its own: it stands behind every token of its row.
        """
        if ("own", dtype) not in self._bias:
            width = max(self.lengths)
            own = torch.ones(width, width, dtype=torch.bool).tril()
            if self.tree:
                own = torch.stack([_tree_mask(parents, width) for parents in self.parents])[:, None]
            seen = torch.ones(*own.shape[:-1], self.prefix, dtype=torch.bool)
            self._bias["own", dtype] = grouped_bias(torch.cat([seen, own], dim=-1), dtype, groups).to(self.device)
        return self._bias["own", dtype]

    def _prefix_bias(self, dtype: torch.dtype, groups: int) -> torch.Tensor:
        if ("prefix", dtype) not in self._bias:
            seen = torch.ones(self.prefix, self.prefix, dtype=torch.bool).tril()
            self._bias["prefix", dtype] = grouped_bias(seen, dtype, groups).to(self.device)
        return self._bias["prefix", dtype]

    # -- varlen

    def _varlen(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        from torch.nn.attention.varlen import varlen_attn

        index, starts_q, starts_k, longest_q, longest_k = self._varlen_layout
        keys = key[0].transpose(0, 1).index_select(0, index)
        values = value[0].transpose(0, 1).index_select(0, index)
        out: Any = varlen_attn(
            query[0].transpose(0, 1).contiguous(),
            keys,
            values,
            starts_q,
            starts_k,
            longest_q,
            longest_k,
            scale=scaling,
            window_size=(-1, 0),  # causal, aligned at the bottom right
            **_grouped(varlen_attn),
        )
        return out[None]

    @cached_property
    def _varlen_layout(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, int]:
        """Gather index of K/V; cumulative lengths of queries and keys (int32); their maxima."""
        queries = ([self.prefix] if self.prefix else []) + list(self.lengths)
        shared = torch.arange(self.prefix)
        index = [shared] if self.prefix else []
        start = self.prefix
        for length in self.lengths:
            index += [shared, torch.arange(start, start + length)]
            start += length
        keys = ([self.prefix] if self.prefix else []) + [self.prefix + length for length in self.lengths]
        return (
            torch.cat(index).to(self.device),
            _starts(queries, self.device),
            _starts(keys, self.device),
            max(queries),
            max(keys),
        )

    # -- dense

    def _dense(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        groups = query.shape[1] // key.shape[1]
        bias = self._dense_bias.to(query.dtype)
        return _sdpa(query, _repeat(key, groups), _repeat(value, groups), bias, scaling).transpose(1, 2)

    @cached_property
    def _dense_bias(self) -> torch.Tensor:
        total = self.prefix + sum(self.lengths)
        mask = torch.zeros(total, total, dtype=torch.bool)
        mask[: self.prefix, : self.prefix] = torch.ones(self.prefix, self.prefix, dtype=torch.bool).tril()
        mask[self.prefix :, : self.prefix] = True
        start = self.prefix
        for length, parents in zip(self.lengths, self.parents, strict=True):
            mask[start : start + length, start : start + length] = _tree_mask(parents, length)
            start += length
        return torch.zeros(total, total).masked_fill_(~mask, torch.finfo(torch.float32).min).to(self.device)


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


def full_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float | None = None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Sequences laid end to end, in each of which every token sees every other: [1, H, T, D] → [1, T, H, D].

    cu_seq_lens_q: int [sequences + 1], where they begin and end. Of a vision tower, an image or a window is a sequence.
    """
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        from torch.nn.attention.varlen import varlen_attn

        starts = cu_seq_lens_q.to(torch.int32)
        q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
        out: Any = varlen_attn(q, k, v, starts, starts, max_length_q, max_length_q, scale=scaling)
        return out[None], None
    lengths = cu_seq_lens_q.diff().tolist()
    if len(set(lengths)) == 1:
        q, k, v = (x[0].unflatten(1, (len(lengths), -1)).transpose(0, 1) for x in (query, key, value))
        same = F.scaled_dot_product_attention(q, k, v, scale=scaling)
        return same.transpose(1, 2).flatten(0, 1)[None], None
    parts = zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    apart = [F.scaled_dot_product_attention(q, k, v, scale=scaling) for q, k, v in parts]
    return torch.cat(apart, dim=2).transpose(1, 2), None


@cache
def _grouped(kernel: Any) -> dict[str, Any]:
    """torch 2.11 takes grouped heads as they are; later releases want to be told."""
    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(kernel).parameters else {}


def _sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, is_causal=mask is None)


def _repeat(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Key and value heads, once for every query head of their group."""
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)


def _tree_mask(parents: Sequence[int] | None, width: int) -> torch.Tensor:
    """bool [width, width]: each token sees its ancestors and itself; padding sees everything before it."""
    mask = torch.ones(width, width, dtype=torch.bool).tril()
    for at, parent in enumerate(parents or ()):
        mask[at] = mask[parent] if parent >= 0 else False
        mask[at, at] = True
    return mask


def _starts(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.cat([torch.zeros(1), torch.tensor(lengths).cumsum(0)]).to(torch.int32).to(device)
