"""Three ways to compute the attention of a pack, each called with query [1, H, T, D], key and value [1, Hk, T, D] →
[1, T, H, D]. What they look up by is made when it is first needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

import torch
from torch.nn import functional as F

from weitiao.engine.grouped import grouped_bias, grouped_sdpa

Parents = Sequence[Sequence[int] | None]


class Rows:
    """Every row a batch entry: prefix K/V expanded, own K/V gathered, one bottom-right causal mask."""

    def __init__(self, prefix: int, lengths: Sequence[int], parents: Parents, device: torch.device) -> None:
        self.prefix, self.lengths, self.parents, self.device = prefix, lengths, parents, device
        self._bias: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
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
            if any(parents is not None for parents in self.parents):
                own = torch.stack([_tree_mask(parents, width) for parents in self.parents])[:, None]
            seen = torch.ones(*own.shape[:-1], self.prefix, dtype=torch.bool)
            self._bias["own", dtype] = grouped_bias(torch.cat([seen, own], dim=-1), dtype, groups).to(self.device)
        return self._bias["own", dtype]

    def _prefix_bias(self, dtype: torch.dtype, groups: int) -> torch.Tensor:
        if ("prefix", dtype) not in self._bias:
            seen = torch.ones(self.prefix, self.prefix, dtype=torch.bool).tril()
            self._bias["prefix", dtype] = grouped_bias(seen, dtype, groups).to(self.device)
        return self._bias["prefix", dtype]


class Varlen:
    """torch's variable-length kernel over gathered [prefix | row] K/V. It knows causal rows only."""

    def __init__(self, prefix: int, lengths: Sequence[int], device: torch.device) -> None:
        self.prefix, self.lengths, self.device = prefix, lengths, device

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        from torch.nn.attention.varlen import varlen_attn

        index, starts_q, starts_k, longest_q, longest_k = self._layout
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
    def _layout(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, int]:
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


class Dense:
    """One T × T mask."""

    def __init__(self, prefix: int, lengths: Sequence[int], parents: Parents, device: torch.device) -> None:
        self.prefix, self.lengths, self.parents, self.device = prefix, lengths, parents, device

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        groups = query.shape[1] // key.shape[1]
        heads = query, _repeat(key, groups), _repeat(value, groups)
        out = F.scaled_dot_product_attention(*heads, attn_mask=self._bias.to(query.dtype), scale=scaling)
        return out.transpose(1, 2)

    @cached_property
    def _bias(self) -> torch.Tensor:
        total = self.prefix + sum(self.lengths)
        mask = torch.zeros(total, total, dtype=torch.bool)
        mask[: self.prefix, : self.prefix] = torch.ones(self.prefix, self.prefix, dtype=torch.bool).tril()
        mask[self.prefix :, : self.prefix] = True
        start = self.prefix
        for length, parents in zip(self.lengths, self.parents, strict=True):
            mask[start : start + length, start : start + length] = _tree_mask(parents, length)
            start += length
        return torch.zeros(total, total).masked_fill_(~mask, torch.finfo(torch.float32).min).to(self.device)


@cache
def _grouped(kernel: Any) -> dict[str, Any]:
    """torch 2.11 takes grouped heads as they are; later releases want to be told."""
    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(kernel).parameters else {}


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
